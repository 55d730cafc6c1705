"""Every private name of Keras that mlsystem uses, by topic. No other module imports `keras.src`.

The docstring of each file says of each name why it is needed, since which Keras it exists, and what
happens if it goes. CONTRIBUTING.md has all of them in one table. They were checked on Keras 3.11,
3.15 and 3.16.
"""

from mlsystem._keras.data import *
from mlsystem._keras.layers import *
from mlsystem._keras.names import *
from mlsystem._keras.saving import *
from mlsystem._keras.torch import *
from mlsystem._keras.trainer import *

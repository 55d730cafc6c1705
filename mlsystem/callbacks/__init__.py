"""Callbacks for the `fit` of models and systems, beside those of Keras, which all work too.

- `Checkpoint`: files from which `fit(resume=...)` goes on exactly where it was.
- `For`: applies a Keras callback to one model of a system.
- `GradientNorms`: logs how strongly each loss pulls at each model.
- `Profile`: writes a trace of some steps.
"""

from mlsystem.callbacks.checkpoint import Checkpoint
from mlsystem.callbacks.for_model import For
from mlsystem.callbacks.gradient_norms import GradientNorms
from mlsystem.callbacks.profile import Profile

__all__ = ["Checkpoint", "For", "GradientNorms", "Profile"]

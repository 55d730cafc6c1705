"""mlsystem: models that learn together, on Keras 3, from one source on every backend.

- `MLModel`: a Keras model with its own loss and its own optimizer.
- `MLSystem`: a model made of models, with a routing of losses to models.
- `MLData`: the training, validation and test data of a system, in one object.
- `Streams`: several data sets read side by side.
- `EMA`: a frozen copy of a model, whose weights are a moving average.
- `Ensemble`: many models of one architecture, run as one program.
- `balance`: ways to balance several losses during training.
- `callbacks`: callbacks of `fit`, beside the callbacks of Keras.
- `plot`: pictures of systems and of their training.
- `tune`: suggests learning rates and batch sizes.
- `setup`: prepares a system for training, from data.
- `grad`: the gradient of a function with respect to its input, the same on every backend.
- `without_adapters`: a context in which the LoRA adapters of a model are off.
- `distribute`: trains on all devices and processes. `process_index`, `process_count` and `gather`
  are for scripts and losses that must know of them.
"""

from mlsystem import _backend_choice as _backend

_backend.choose()

from mlsystem import balance, callbacks, plot, tune  # noqa: E402
from mlsystem.data.mldata import MLData  # noqa: E402
from mlsystem.data.streams import Streams  # noqa: E402
from mlsystem.engine.distribution.start import (  # noqa: E402
    distribute,
    gather,
    process_count,
    process_index,
)
from mlsystem.models.ema import EMA  # noqa: E402
from mlsystem.models.ensemble import Ensemble  # noqa: E402
from mlsystem.models.model import MLModel  # noqa: E402
from mlsystem.models.system import MLSystem  # noqa: E402
from mlsystem.preparation.setup import setup  # noqa: E402
from mlsystem.step.adapters import without_adapters  # noqa: E402
from mlsystem.step.input_gradient import grad  # noqa: E402

__version__ = "0.1.0"
__all__ = [
    "EMA",
    "Ensemble",
    "MLData",
    "MLModel",
    "MLSystem",
    "Streams",
    "balance",
    "callbacks",
    "distribute",
    "gather",
    "grad",
    "plot",
    "process_count",
    "process_index",
    "setup",
    "tune",
    "without_adapters",
]


def __dir__() -> list[str]:
    return [*__all__, "__doc__", "__version__"]

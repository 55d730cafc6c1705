"""`choose`: the tracker that the first argument of `Log` names."""

import importlib.util
import inspect
from collections.abc import Mapping
from typing import Any

from mlsystem._checks import did_you_mean, nearest
from mlsystem.callbacks.tracking.comet import Comet
from mlsystem.callbacks.tracking.mlflow import MLflow
from mlsystem.callbacks.tracking.target import Charts, Target
from mlsystem.callbacks.tracking.tensorboard import TensorBoard
from mlsystem.callbacks.tracking.trackio import Trackio
from mlsystem.callbacks.tracking.wandb import WandB

TARGETS: dict[str, type[Target]] = {
    "tensorboard": TensorBoard,
    "wandb": WandB,
    "mlflow": MLflow,
    "trackio": Trackio,
    "comet": Comet,
}


class Given(Target):
    """An object of the user with a method `log(values, step)`. It gets numbers only."""

    takes_images = False

    def __init__(self, logger: Any) -> None:
        super().__init__()
        self.logger = logger

    def __deepcopy__(self, memo: Any) -> "Given":
        return self  # a connection to a tracker has no copy

    @property
    def name(self) -> str:
        """The name of the user's class in messages."""
        return type(self.logger).__name__

    def start(self, title: str, run: str | None, step: int, charts: Charts) -> str:
        """Use the object as it is."""
        return ""

    def picture(self, picture: Any) -> None:
        """Draw nothing: the object takes no images."""

    def log(self, values: Mapping[str, float], step: int) -> None:
        """Call the object."""
        self.logger.log(dict(values), step)


def choose(target: Any, place: Any) -> Target:
    """Return the tracker. Raise an error if it is unknown or not installed."""
    if not isinstance(target, str):
        _check(target, place)
        return Given(target)
    if target not in TARGETS:
        raise ValueError(
            f"Log got the tracker '{target}', which it does not know."
            f"{did_you_mean(nearest(target.lower(), TARGETS))} It knows "
            f"{', '.join(map(repr, TARGETS))}, and objects with a method log(values, step)."
        )
    package = TARGETS[target].package
    if importlib.util.find_spec(package) is None:
        raise ImportError(
            f"Log('{target}') needs {package}, which is not installed. Install it with "
            f"`python -m pip install {package}`."
        )
    return TARGETS[target](place)


def _check(logger: Any, place: Any) -> None:
    log = getattr(logger, "log", None)
    if isinstance(logger, type) or not callable(log):
        raise ValueError(
            f"Log got {logger!r}. Give the name of a tracker ({', '.join(map(repr, TARGETS))}), or "
            "an object with a method log(values, step)."
        )
    try:
        inspect.signature(log).bind({}, 0)
    except TypeError as error:
        raise ValueError(
            f"Log calls log(values, step) of {type(logger).__name__}, and it takes "
            f"{inspect.signature(log)}. Change its arguments."
        ) from error
    if place is not None:
        raise ValueError(
            f"Log got {place!r} beside an object of {type(logger).__name__}. A place is for "
            "trackers that Log opens by name. Leave it out."
        )

"""Which way a log of a system is to go, for callbacks whose mode is "auto".

Keras finds that out for `loss` and for the metrics of the model that is trained, under the names
that these have there. In a system they go by the names of its models too.
"""

from typing import Any

from mlsystem import _keras, _learner
from mlsystem.metrics import log_names, member_metrics

_LOSSES = ("the loss ", "the term ", "the sum of the losses")  # as the owners of logs are called


def choose_mode(callback: Any, model: Any, of: str = "") -> None:
    """Sets the mode of a callback that is to find it out, where it monitors a log of a model.

    Args:
        callback: any callback.
        model: the model or system that is trained.
        of: the model of it that the callback is for, which may leave out its name.
    """
    sets = log_names.names(model)
    is_keras_own = not _learner.is_system(model) and not sets
    if getattr(callback, "mode", None) == "auto" and not is_keras_own:
        monitor, modes = getattr(callback, "monitor", ""), _modes(model)
        name = monitor.removeprefix(log_names.front(monitor, sets))
        callback.mode = modes.get(f"{of}_{name}", modes.get(name, "auto"))


def _modes(model: Any) -> dict[str, str]:
    owners = model._mlsystem.logs.owners.items()
    of_losses = [log for log, owner in owners if owner.lower().startswith(_LOSSES)]
    modes = dict.fromkeys(["loss", *of_losses], "min")
    for name, metrics in _metrics(model).items():
        for metric in metrics.metrics:
            if direction := _keras.direction(metric):
                modes[name + metric.name] = "max" if direction == "up" else "min"
    return modes


def _metrics(model: Any) -> dict[str, Any]:
    """The metrics of each model, by what their names begin with in the logs."""
    if _learner.is_system(model):
        return {f"{name}_": metrics for name, metrics in member_metrics.metrics_of(model).items()}
    metrics = _keras.compile_metrics(model)
    return {} if metrics is None else {"": metrics}

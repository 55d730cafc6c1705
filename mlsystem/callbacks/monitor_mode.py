"""Decide whether a metric should go up or down, for callbacks with `mode="auto"`.

Keras finds the mode of `loss` and of the metrics of the trained model, under the names that they
have there. In a system, the names of losses and metrics also hold the names of models.
"""

from typing import Any

from mlsystem import _keras, _learner
from mlsystem.callbacks import validation_names

_LOSSES = ("the loss ", "the term ", "the sum of the losses")  # start of the names of log owners


def choose_mode(callback: Any, model: Any, of: str = "") -> None:
    """Set the mode of a callback with `mode="auto"` that monitors a log of a model.

    Args:
        callback: any callback.
        model: the model or system that is trained.
        of: the model in the system that the callback is for. Its logs may leave out its name.
    """
    sets = validation_names.names(model)
    is_keras_own = not _learner.is_system(model) and not sets
    if getattr(callback, "mode", None) == "auto" and not is_keras_own:
        monitor, found = getattr(callback, "monitor", ""), modes(model)
        name = monitor.removeprefix(validation_names.front(monitor, sets))
        callback.mode = found.get(f"{of}_{name}", found.get(name, "auto"))


def modes(model: Any) -> dict[str, str]:
    """Return "min" or "max" for each loss and metric whose better side is known, by its log."""
    owners = model._mlsystem.logs.owners.items()
    of_losses = [log for log, owner in owners if owner.lower().startswith(_LOSSES)]
    found = dict.fromkeys(["loss", *of_losses], "min")
    for name, metrics in _metrics(model).items():
        for metric in metrics.metrics:
            if direction := _keras.direction(metric):
                found[name + metric.name] = "max" if direction == "up" else "min"
    return found


def _metrics(model: Any) -> dict[str, Any]:
    """Return the metrics of each model, by the prefix of their names in the logs."""
    if _learner.is_system(model):
        return {f"{name}_": metrics for name, metrics in model._mlsystem.metrics.items()}
    metrics = _keras.compile_metrics(model)
    return {} if metrics is None else {"": metrics}

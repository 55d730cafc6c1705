"""Which way a log of a system is to go, for callbacks whose mode is "auto".

Keras finds that out for `loss` and for the metrics of the model that is trained, under the names
that these have there. In a system they go by the names of its models too.
"""

from typing import Any

from mlsystem import _keras, configure


def choose_mode(callback: Any, model: Any) -> None:
    """Sets the mode of a callback that is to find it out, where it monitors a log of a model."""
    if getattr(callback, "mode", None) == "auto" and hasattr(model, "compute_losses"):
        name = getattr(callback, "monitor", "").removeprefix("val_")
        callback.mode = _modes(model).get(name, "auto")


def _modes(system: Any) -> dict[str, str]:
    owners = system._run.logs.owners.items()
    modes = {log: "min" for log, owner in owners if owner.startswith(("the loss ", "the term "))}
    for name, metrics in configure.metrics_of(system).items():
        for metric in metrics.metrics:
            if direction := _keras.direction(metric):
                modes[f"{name}_{metric.name}"] = "max" if direction == "up" else "min"
    return modes

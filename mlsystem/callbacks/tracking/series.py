"""`Series`: how the logs of a training run are named in a tracker."""

import re
from collections.abc import Mapping
from typing import Any

from mlsystem import _learner
from mlsystem.callbacks import monitor_mode, validation_names
from mlsystem.callbacks.for_model import named_first
from mlsystem.callbacks.tracking.target import Charts

_RUN = re.compile(r"[\w-]{1,128}", re.ASCII)


class Series:
    """The names of series, under the models that they belong to.

    Args:
        learner: the learner of the model that is trained, ready for its first step.
    """

    def __init__(self, learner: Any) -> None:
        self.is_system = _learner.is_system(learner.model)
        self.trained = {*learner.logs.owners, *learner.metric_names(), "loss"}
        self.models = list(dict.fromkeys([*learner.known_models(), *learner.members()]))
        self.sets = validation_names.names(learner.model)
        self.modes: dict[str, str] = monitor_mode.modes(learner.model)

    def name(self, log: str) -> str:
        """Return the name of the series of a log.

        `val_generator_loss` becomes `generator/val_loss`.
        """
        model, name = self._split(log)
        return f"{model}/{name}" if model else name

    def named(self, logs: Mapping[str, float]) -> dict[str, float]:
        """Return logs by the names of their series."""
        return {self.name(log): value for log, value in logs.items()}

    def charts(self) -> Charts:
        """Return the series of each chart: training and validation, by model."""
        fronts = ["", "val_", *(f"val_{name}_" for name in self.sets)]
        charts: Charts = {}
        shown = [log for log in self.trained if not log.endswith("_skipped")]  # rarely logged
        for log in sorted(shown, key=self._order):
            model, title = self._split(log)
            charts.setdefault(model, {})[title] = [self.name(f"{f}{log}") for f in fronts]
        return charts

    def better(self, log: str, value: float, than: float | None) -> bool:
        """Return whether a value of a log is better than another. False if no side is better."""
        mode = self.modes.get(log.removeprefix(self._front(log)))
        if mode is None or value != value:
            return False
        return than is None or (value < than if mode == "min" else value > than)

    def _order(self, log: str) -> tuple[int, bool, str]:
        """Return a sort key: the sums, then the models in their order, with the loss first."""
        model, title = self._split(log)
        return self.models.index(model) if model else -1, title != "loss", title

    def _split(self, log: str) -> tuple[str, str]:
        """Return the model of a log, or "", and the name of the log in it."""
        front = self._front(log)
        name = log.removeprefix(front)
        model = named_first(name, self.models)
        name = front + (name.removeprefix(f"{model}_") if model else name)
        return (model if self.is_system else ""), name

    def _front(self, log: str) -> str:
        # A model may be named `val_...`.
        return "" if log in self.trained else validation_names.front(log, self.sets)


def is_run(value: Any) -> bool:
    """Return whether a value from a checkpoint can be what a tracker calls a run."""
    return isinstance(value, str) and _RUN.fullmatch(value) is not None

"""`Readings`: the numbers of a training run, read a few times a minute and kept as curves."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from keras import ops

from mlsystem import _keras, _learner
from mlsystem._learner import Learner

Curve = list[tuple[float, float]]  # positions in epochs, and values


@dataclass
class Readings:
    """What was read from a learner so far, without an effect on it.

    A loss is its mean over the batches since the last reading in the same epoch.

    Attributes:
        learner: the learner of the model that is trained.
        latest: the latest value of each log.
        curves: the values of each log in the course of training.
        colors: the color of each model.
    """

    learner: Learner
    latest: dict[str, float] = field(default_factory=dict)
    curves: dict[str, Curve] = field(default_factory=dict)
    colors: dict[str, str] = field(default_factory=dict)
    is_read: bool = False  # in this epoch
    _sums: dict[str, tuple[float, float]] = field(default_factory=dict)
    _skipped: dict[str, int] = field(default_factory=dict)  # in the epochs that are over
    _skipped_now: dict[str, int] = field(default_factory=dict)

    def begin_epoch(self) -> None:
        """Forget the sums, which start from zero."""
        self._sums, self._skipped_now, self.is_read = {}, {}, False

    def read(self, position: float) -> None:
        """Read the means since the last reading, and the metrics."""
        found = _metrics(self.learner)
        for name, (total, count) in _sums(self.learner).items():
            before_total, before_count = self._sums.get(name, (0.0, 0.0))
            if count > before_count:
                found[name] = (total - before_total) / (count - before_count)
            else:
                found.pop(name, None)
            self._sums[name] = total, count
        self._skipped_now = self.learner.logs.skipped()
        self.is_read = True
        self.add(found, position)

    def end_epoch(self, logs: Mapping[str, Any], position: float) -> None:
        """Add the logs of an epoch: all of them if there was no reading, else what is new."""
        known = set(_sums(self.learner)) if self.is_read else set()
        self.add(
            {n: _number(v) for n, v in logs.items() if n not in known and not np.ndim(v)}, position
        )
        for name in self.learner.models():
            number = int(logs.get(f"{name}_skipped", 0))
            self._skipped[name] = self._skipped.get(name, 0) + number
        self._skipped_now = {}

    def add(self, values: Mapping[str, float], position: float) -> None:
        """Add values to the curves."""
        self.latest |= values
        for name, value in values.items():
            self.curves.setdefault(name, []).append((position, value))

    def skipped(self, model: str) -> int:
        """Return the number of skipped updates of a model in this `fit`."""
        return self._skipped.get(model, 0) + self._skipped_now.get(model, 0)

    def updates(self, model: str) -> int | None:
        """Return how often a model was updated. None if it is not trained."""
        return _count(self.learner.optimizers.get(model))

    def rate(self, model: str) -> float | None:
        """Return the learning rate of a model. None if it has none, or several."""
        rate = getattr(self.learner.optimizers.get(model), "learning_rate", None)
        return None if rate is None else _number(rate)


def _count(optimizer: Any) -> int | None:
    return None if optimizer is None else int(_number(optimizer.iterations))


def _number(value: Any) -> float:
    return float(ops.convert_to_numpy(value))


def trackers(learner: Learner) -> dict[str, Any]:
    """Return the running means of the losses and of what is logged."""
    found = dict(learner.logs.trackers)
    if not _learner.is_system(learner.model):
        found["loss"] = _keras.loss_tracker(learner.model)
    return {name: tracker for name, tracker in found.items() if tracker is not None}


def _sums(learner: Learner) -> dict[str, tuple[float, float]]:
    return {n: (_number(t.total), _number(t.count)) for n, t in trackers(learner).items()}


def _metrics(learner: Learner) -> dict[str, float]:
    """Return the metrics of the epoch so far, which are no means of losses."""
    found = learner.model.get_metrics_result()
    numbers = {name: value for name, value in found.items() if not isinstance(value, dict)}
    arrays = {name: ops.convert_to_numpy(value) for name, value in numbers.items()}
    return {name: float(array) for name, array in arrays.items() if not np.ndim(array)}

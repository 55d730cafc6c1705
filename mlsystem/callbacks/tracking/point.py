"""`Point`: the numbers after a batch, which are read when the device has long computed them."""

from typing import Any

import numpy as np
from keras import ops

from mlsystem._learner import Learner
from mlsystem.callbacks.live.readings import trackers
from mlsystem.engine import engine

Sums = dict[str, tuple[float, float]]  # of the epoch so far, and their counts


class Point:
    """A copy of the numbers on the device. Nothing waits for it until `values` reads it.

    Args:
        learner: the learner of the model that is trained.
        step: number of batches trained.
        before: the sums of the point before in the same epoch, None for the first.
        measured: numbers that were measured in the last batch.
    """

    def __init__(
        self, learner: Learner, step: int, before: "Point | None", measured: dict[str, float]
    ) -> None:
        self.step, self.before, self.measured = step, before, measured
        means = trackers(learner)
        others = {n: v for n, v in _metrics(learner).items() if n not in means}
        sums = [value for tracker in means.values() for value in (tracker.total, tracker.count)]
        self.means, self.others = list(means), list(others)
        self._read = engine.read_later(_stacked([*sums, *others.values()]))
        self._sums: Sums | None = None

    def values(self) -> dict[str, float]:
        """Return the metrics, the rates, and the means of losses since the point before."""
        found = dict(self.measured)
        before = {} if self.before is None else self.before.sums()
        for name, (total, count) in self.sums().items():
            total_before, count_before = before.get(name, (0.0, 0.0))
            if count > count_before:
                found[name] = (total - total_before) / (count - count_before)
        self.before = None  # which holds its own
        return found | self._others

    def sums(self) -> Sums:
        """Return the sums and counts of the epoch so far, by log."""
        if self._sums is None:
            numbers = np.asarray(self._read(), "float64").tolist()
            pairs = zip(numbers[::2], numbers[1::2], strict=False)
            self._sums = dict(zip(self.means, pairs, strict=False))
            found = numbers[2 * len(self.means) :]
            self._others = dict(zip(self.others, found, strict=True))
        return self._sums


def _stacked(values: list[Any]) -> Any:
    return ops.stack([ops.cast(value, "float32") for value in values])


def _metrics(learner: Learner) -> dict[str, Any]:
    """Return the metrics that are one number each, and the learning rates."""
    found = learner.model.get_metrics_result()
    numbers = {n: v for n, v in found.items() if not isinstance(v, dict) and np.ndim(v) == 0}
    return numbers | rates(learner)


def rates(learner: Learner) -> dict[str, Any]:
    """Return the learning rate of each model by its log, as tensors."""
    found = {n: getattr(o, "learning_rate", None) for n, o in learner.optimizers.items()}
    return {f"{name}_learning_rate": rate for name, rate in found.items() if rate is not None}

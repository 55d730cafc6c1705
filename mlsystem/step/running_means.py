"""`Logs`: the running mean of each loss, term and `self.log` value."""

from collections.abc import Iterable, Mapping
from typing import Any

import keras
from keras import ops

from mlsystem import _keras
from mlsystem.engine import engine


class Logs:
    """The trackers of a system: one `keras.metrics.Mean` per name, with the owner of the name.

    Once `sealed`, no name can be added, because a compiled step cannot create variables.
    """

    def __init__(self) -> None:
        self.trackers: dict[str, Any] = {}
        self.owners: dict[str, str] = {}
        self.gated: set[str] = set()
        self.filled: set[str] = set()
        self.sealed = False
        self.skips: dict[str, Any] = {}
        self.known_skips: dict[
            str, int
        ] = {}  # the models that ever skipped an update, with their count in this epoch
        self.evaluated: dict[str, None] = {}  # the losses that an evaluation adds up

    def claim(self, name: str, owner: str) -> None:
        """Reserve a name for an owner. Raise an error if another owner has the name."""
        if (known := self.owners.setdefault(name, owner)) != owner:
            is_loss = any(text.startswith(("the loss ", "the term ")) for text in (known, owner))
            twice = is_loss and "self.log(" in f"{known} {owner}"
            raise ValueError(
                f"{owner} would be logged as '{name}', which is the log of {known}. "
                f"{'Losses are logged by themselves: leave `self.log` out. ' if twice else ''}"
                f"Rename {'it, if it is another number' if twice else 'one of them'}."
            )

    def update(self, values: Mapping[str, tuple[str, Any, Any]]) -> None:
        """Add a value, with its weight, to running means. The first value creates the mean."""
        for name, (owner, value, weight) in values.items():
            if name not in self.trackers or self.owners.get(name) != owner:
                self.make(name, owner)
            self.trackers[name].update_state(value, sample_weight=weight)

    def make(self, name: str, owner: str) -> None:
        """Create the running mean of a name, if it does not exist."""
        self.claim(name, owner)
        if name not in self.trackers:
            self.trackers[name] = self._new(name)

    def count_skips(self, models: Iterable[str]) -> None:
        """Create a counter of the skipped updates of each model."""
        for model in models:
            name = f"{model}_skipped"
            self.claim(name, f"the number of skipped updates of '{model}'")
            if model not in self.skips:
                with _keras.DotNotTrackScope():
                    self.skips[model] = keras.metrics.Sum(name=name, dtype="float32")

    def skipped(self) -> dict[str, int]:
        """Return how many updates of each model were skipped since the logs were reset."""
        if not self.skips:
            return {}
        totals = engine.read([total.total.value for total in self.skips.values()])
        return dict(zip(self.skips, map(int, totals), strict=True))

    def _new(self, name: str) -> Any:
        if self.sealed:
            raise ValueError(
                f"'{name}' is logged for the first time in the middle of training. "
                "Log it in the first step too."
            )
        # Not tracked, or Keras would add it to the metrics of the layer that is being called.
        with _keras.DotNotTrackScope():
            return keras.metrics.Mean(name=name)

    def check(self, taken: set[str]) -> None:
        """Raise an error if the name of a log is also the name of a metric."""
        for name in self.owners:
            if name in taken:
                raise ValueError(
                    f"{self.owners[name]} would be logged as '{name}', which is a metric. "
                    "Rename one of them."
                )

    def metrics(self) -> list[Any]:
        """Return the trackers, for a model's `metrics` property in Keras."""
        return [*loss_first(self.trackers).values(), *self.skips.values()]

    def results(self, names: Iterable[str] | None = None) -> dict[str, Any]:
        """Return the running means of some names, or of all names that have a value."""
        if names is None:
            known = {name: _mean(tracker) for name, tracker in self.trackers.items()}
            return {name: mean for name, mean in known.items() if mean is not None}
        return {name: self.trackers[name].result() for name in names}

    def total(self, names: Iterable[str]) -> Any:
        """Return the sum of some running means, which may be over different numbers of samples."""
        return sum(self.trackers[name].result() for name in names if name in self.trackers)

    def visible(self, logs: dict[str, Any]) -> dict[str, Any]:
        """Return a step's logs without the means that a condition has kept empty so far."""
        for name in self.gated - self.filled:  # reading a mean waits for the step behind it
            if name not in self.trackers or _filled(self.trackers[name]):
                self.filled.add(name)
        if not (empty := self.gated - self.filled):
            return logs
        return {name: value for name, value in logs.items() if name not in empty}

    def reset(self) -> None:
        """Forget which means have a value. Called after the running means were reset."""
        self.filled.clear()


def loss_first(logs: dict[str, Any]) -> dict[str, Any]:
    """Return logs with `loss` first, where users of Keras look for it."""
    if next(iter(logs), "") == "loss":
        return logs
    return {name: logs[name] for name in sorted(logs, key=lambda name: name != "loss")}


def _mean(tracker: Any) -> Any:
    """Return a running mean outside of a step. None if it is empty.

    NumPy divides: JAX would compile programs for it.
    """
    total, count = (ops.convert_to_numpy(v.value) for v in (tracker.total, tracker.count))
    return ops.convert_to_tensor(total / count) if count > 0 else None


def _filled(tracker: Any) -> bool:
    return bool(ops.convert_to_numpy(tracker.count) > 0)

"""What is known while one step runs, shared by the system and all the models in it."""

import functools
import threading
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

from keras import ops

from mlsystem import data, engine

_running = threading.local()


@dataclass
class Taken:
    """The losses and their named terms in one forward pass, as scalars by the name they go by.

    `owners` says which loss each term is part of.
    """

    losses: dict[str, Any] = field(default_factory=dict)
    terms: dict[str, Any] = field(default_factory=dict)
    owners: dict[str, str] = field(default_factory=dict)


@dataclass
class Step:
    """One train or test step of a learner, from its batch to its logs.

    `sums` and `counts` gather each loss and term over the phases in which it counted, and
    `owners` says which loss a term is part of. `gate` is the condition of the update in progress
    and `gated` what was counted under one. `pending` holds for each model the losses that its
    gradients were last taken of, `touched` are the names logged in this step and
    `measured` the members whose metrics were updated.
    """

    learner: Any
    batch: data.Batch
    training: bool
    gate: Any = None
    gated: set[str] = field(default_factory=set)
    sums: dict[str, Any] = field(default_factory=dict)
    counts: dict[str, Any] = field(default_factory=dict)
    owners: dict[str, str] = field(default_factory=dict)
    pending: dict[str, tuple[set[str], Taken]] = field(default_factory=dict)
    touched: dict[str, None] = field(default_factory=dict)
    measured: set[str] = field(default_factory=set)
    logs: dict[str, Any] | None = None

    def count(self, taken: Taken, losses: set[str]) -> None:
        """Counts some losses and their terms once more, unless the gate is shut."""
        self.owners |= taken.owners
        self._add(taken.losses, losses)
        self._add(taken.terms, {term for term, owner in taken.owners.items() if owner in losses})

    def _add(self, values: Mapping[str, Any], names: set[str]) -> None:
        for name in [name for name in values if name in names]:
            value, one = values[name], 1
            if self.gate is not None:
                self.gated.add(name)
                value = ops.where(self.gate, value, ops.zeros_like(value))
                one = ops.cast(self.gate, value.dtype)
            self.sums[name] = self.sums[name] + value if name in self.sums else value
            self.counts[name] = self.counts.get(name, 0) + one

    def means(self) -> dict[str, tuple[Any, Any]]:
        """The mean of each loss and term over its phases, with its weight; empties the sums."""
        means = {name: self._mean(name) for name in self.sums}
        self.sums.clear()
        self.counts.clear()
        return means

    def _mean(self, name: str) -> tuple[Any, Any]:
        total, count = self.sums[name], self.counts[name]
        if isinstance(count, int):
            return total / count if count > 1 else total, self.batch.size
        counted = ops.cast(count > 0, total.dtype)
        return total / ops.maximum(count, 1), counted * ops.cast(self.batch.size, total.dtype)


def running() -> Step | None:
    """The step that is running in this thread."""
    return getattr(_running, "step", None)


def of(learner: Any) -> Step | None:
    """The step that is running, if it is one of this learner."""
    current = running()
    return current if current is not None and current.learner is learner else None


def make(training: bool) -> Callable[[Any], Any]:
    """Makes a user's `train_step(self, data)` or `test_step(self, data)` a step of its learner.

    Calls of the inherited method from inside one belong to the same step.
    """

    def decorate(fn: Callable[[Any, Any], Any]) -> Callable[[Any, Any], Any]:
        @functools.wraps(fn)
        def step(self: Any, data: Any) -> Any:
            return fn(self, data) if of(self) else _run(fn, self, data, training)

        step.is_step = True  # type: ignore[attr-defined]
        return step

    return decorate


def _run(fn: Callable[[Any, Any], Any], learner: Any, given: Any, training: bool) -> Any:
    outer = running()
    with engine.chosen.step_scope(given):
        if learner._run.transform is not None:
            given = learner._run.transform.inside(given, training)
        _running.step = this = Step(learner, data.batch(given), training)
        try:
            logs = fn(learner, given)
            if logs is None:
                raise ValueError(
                    f"{type(learner).__name__}.{fn.__name__} returned None. "
                    "End it with `return self.get_metrics_result()`."
                )
            learner._close_step(this)
            return logs
        finally:
            _running.step = outer


def any_weight(weights: list[Any]) -> Any:
    """The weight of a sum that counts where any of its parts does."""
    weight = weights[0]
    for other in weights[1:]:
        weight = weight if other is weight else ops.maximum(weight, other)
    return weight

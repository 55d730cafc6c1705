"""`LossLedger`: decide which losses of a step are logged: the losses of updated models.

A loss is logged if a model that follows it was updated. It waits (`pend`) until the gradients of
the model are applied. Then it is counted (`settle`). At the end of the step, its mean over the
phases goes to the logs (`means`).
"""

from collections.abc import Mapping, Sequence
from typing import Any

from keras import ops

from mlsystem.data.batch import Batch
from mlsystem.engine import select
from mlsystem.routing import routing_table
from mlsystem.step.loss_values import LossValues


class LossLedger:
    """The losses and terms of one step.

    Attributes:
        batch: the batch of the step.
        pending: for each model, the losses behind its most recent gradients.
        counted: the values of each loss and term, one per phase, with their conditions.
        gated: the names that were counted under a condition.
        owners: for each term, the name of its loss.
        sizes: for each name, the number of samples in its average.
    """

    def __init__(self, batch: Batch) -> None:
        self.batch = batch
        self.pending: dict[str, tuple[set[str], LossValues]] = {}
        self.counted: dict[str, list[tuple[Any, Any]]] = {}
        self.gated: set[str] = set()
        self.owners: dict[str, str] = {}
        self.sizes: dict[str, Any] = {}

    def pend(self, taken: LossValues, rows: routing_table.Rows) -> None:
        """Remember the losses behind the gradients of some models."""
        if older := next((self.pending[n][1] for n in rows if n in self.pending), None):
            both = [*taken.before, *older.before]  # of two values, the older one wins
            taken.before = list({id(v): (v, old) for v, old in both}.values())
        known = list(taken.losses)
        self.pending |= {
            model: (routing_table.followed(row, known), taken) for model, row in rows.items()
        }

    def settle(self, updated: Mapping[str, Any]) -> list[tuple[LossValues, list[Any]]]:
        """Count the losses that waited for the update of some models, with their conditions.

        Returns the losses of each forward pass, with the conditions under which its models were
        updated.
        """
        waited = [(*self.pending.pop(n), c) for n, c in updated.items() if n in self.pending]
        passes = list({id(taken): taken for _, taken, _ in waited}.values())
        for taken in passes:
            conditions: dict[str, list[Any]] = {}
            for losses, other, condition in waited:
                for name in losses if other is taken else ():
                    conditions.setdefault(name, []).append(condition)
            self.count(taken, {name: select.any_of(found) for name, found in conditions.items()})
        return [(taken, [c for _, other, c in waited if other is taken]) for taken in passes]

    def count(self, taken: LossValues, losses: Mapping[str, Any]) -> None:
        """Count some losses and their terms once more, each if its condition holds."""
        self.owners |= taken.owners
        self.sizes |= {name: size for name, size in taken.sizes.items() if size is not None}
        for name, value in [*taken.losses.items(), *taken.terms.items()]:
            loss = taken.owners.get(name, name)
            if loss not in losses:
                continue
            if (condition := losses[loss]) is not None:
                self.gated.add(name)
                value = ops.where(condition, value, ops.zeros((), value.dtype))
            self.counted.setdefault(name, []).append((value, condition))

    def means(self) -> dict[str, tuple[Any, Any]]:
        """Return each loss' and term's mean over the phases, with its weight. Empty the counts."""
        weights: dict[Any, Any] = {}
        sizes = self.sizes
        if not self.counted.keys() <= sizes.keys():
            sizes = dict.fromkeys(self.counted, self.batch.size) | sizes
        means = {name: self._mean(name, sizes[name], weights) for name in self.counted}
        self.counted.clear()
        return means

    def _mean(self, name: str, size: Any, weights: dict[Any, Any]) -> tuple[Any, Any]:
        values, conditions = zip(*self.counted[name], strict=True)
        total = sum(values[1:], values[0])
        if all(condition is None for condition in conditions):
            return total / len(values) if len(values) > 1 else total, size
        one = ops.ones((), total.dtype)
        ones = [one if c is None else ops.cast(c, total.dtype) for c in conditions]
        if len(ones) == 1:
            key = id(conditions[0]), size if isinstance(size, int) else None
            if key not in weights or key[1] is None:
                weights[key] = ones[0] * ops.cast(size, total.dtype)
            return total, weights[key]
        count = sum(ones[1:], ones[0])
        counted = ops.cast(count > 0, total.dtype)
        return total / ops.maximum(count, 1), counted * ops.cast(size, total.dtype)


def summed(means: Sequence[tuple[Any, Any]]) -> tuple[Any, Any]:
    """Return the sum of some means and its weight. The sum counts if any of the means does."""
    total = sum(value for value, _ in means)
    weight = means[0][1]
    for _, other in means[1:]:
        largest = max if isinstance(weight, int) and isinstance(other, int) else ops.maximum
        weight = weight if other is weight else largest(weight, other)
    return total, weight

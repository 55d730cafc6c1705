"""What a step logs, over all replicas. On one replica nothing happens.

Where a backend computes with the whole batch, nothing happens either.
"""

import contextlib
from collections.abc import Callable, Iterable, Iterator
from dataclasses import replace
from typing import Any

from keras import ops

from mlsystem.data.batch import Batch
from mlsystem.engine import engine
from mlsystem.step.loss_values import LossValues


def of_losses(taken: LossValues, batch: Batch | None) -> LossValues:
    """Return losses and terms of the global batch, with its numbers of samples.

    A loss without a number of samples has that of `batch`, the batch of this replica.
    """
    if not engine.replicas.reduces:
        return taken
    values = taken.losses | taken.terms
    if not values:
        return taken
    size = 1 if batch is None else batch.size
    known = {n: size if taken.sizes.get(n) is None else taken.sizes[n] for n in values}
    means, sizes = _means(list(values.values()), list(known.values()))
    found = dict(zip(values, means, strict=True))
    return replace(
        taken,
        losses={name: found[name] for name in taken.losses},
        terms={name: found[name] for name in taken.terms},
        sizes=taken.sizes | dict(zip(values, sizes, strict=True)),
    )


def of_value(value: Any, size: Any) -> tuple[Any, Any]:
    """Return the mean of a value over all replicas, and the number of samples of all."""
    if not engine.replicas.reduces:
        return value, size
    [mean], [total] = _means([value], [size])
    return mean, total


def _means(values: list[Any], sizes: list[Any]) -> tuple[list[Any], list[Any]]:
    """Average values, each weighted by a number of samples."""
    weights = ops.stack([ops.cast(size, "float32") for size in sizes])
    sums = ops.stack([ops.cast(value, "float32") for value in values]) * weights
    totals, counts = ops.unstack(engine.replicas.total(ops.stack([sums, weights])))
    means = ops.unstack(totals / counts, len(values))
    found = [ops.cast(mean, v.dtype) for mean, v in zip(means, values, strict=True)]
    return found, ops.unstack(counts, len(values))


def all_true(condition: Any) -> Any:
    """Return whether a condition holds on all replicas."""
    replicas = engine.replicas
    if not replicas.reduces or condition is None:
        return condition
    return ops.equal(replicas.total(ops.cast(condition, "int32")), replicas.size)


def summed(variables: Callable[[], Iterable[Any]]) -> contextlib.AbstractContextManager[None]:
    """Add up what each replica adds to variables inside the context, such as those of metrics."""
    return _summed(list(variables())) if engine.replicas.reduces else contextlib.nullcontext()


@contextlib.contextmanager
def _summed(variables: list[Any]) -> Iterator[None]:
    before = [engine.kept(variable.value) for variable in variables]
    yield
    for variable, old in zip(variables, before, strict=True):
        variable.assign(old + engine.replicas.total(variable.value - old))

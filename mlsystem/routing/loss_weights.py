"""Loss weights: numbers, variables and schedules.

The tables of `routing` and `compile(loss_weights=)` contain such weights. Both may belong to a
system or to the systems inside it.
"""

import math
import numbers
from collections.abc import Callable, Iterator, Mapping
from typing import Any

import keras
import numpy as np
from keras import ops

from mlsystem.routing import members

# The numbers of seen batches on which a schedule is tested.
_TRIED = (0, 1, 2, 10, 100)


def value(weight: Any, batches: Callable[[], Any], dtype: Any) -> Any:
    """Return the present value of a weight: a number unchanged, anything else as a scalar tensor.

    Args:
        weight: number, Keras variable, or schedule.
        batches: returns the number of batches before this one, for a schedule.
        dtype: the dtype of the weighted loss.
    """
    if callable(weight):
        return ops.cast(weight(batches()), dtype)
    if isinstance(weight, keras.Variable):
        return ops.cast(ops.convert_to_tensor(weight), dtype)
    return weight


def product(factors: tuple[Any, ...], start: Any, batches: Callable[[], Any], loss: Any) -> Any:
    """Return the weight of a loss: its factors times `start`, in the dtype of the loss."""
    for factor in factors:
        plain = isinstance(factor, numbers.Real)
        start = start * (factor if plain else value(factor, batches, loss.dtype))
    return start


def given(system: Any, path: str = "") -> Iterator[tuple[str, Any]]:
    """Yield all weights of a system and its nested systems, each with its place in words."""
    for model, row in _items(system.routing):
        for loss, weight in _items(row):
            yield f"The routing of '{path}{model}' weighs the loss '{path}{loss}'", weight
    weights = system._mlsystem.given.loss_weights
    for loss, weight in _items(weights):
        yield f"loss_weights of '{system.name}' weighs the loss '{path}{loss}'", weight
    if weights is not None and not isinstance(weights, Mapping):
        yield f"loss_weights of '{system.name}' weighs each loss", weights
    for name, inner in members.nested(system).items():
        yield from given(inner, f"{path}{name}/")


def _items(table: Any) -> Any:
    return table.items() if isinstance(table, Mapping) else ()


def variables(system: Any) -> list[Any]:
    """Return the variables among the weights, and the variables that schedules hold."""
    found: list[Any] = []
    for _, weight in given(system):
        held = vars(weight).values() if callable(weight) else [weight]
        found += [v for v in held if isinstance(v, keras.Variable)]
    return found


def check(system: Any) -> None:
    """Raise an error if a weight is not one finite number, now or in its schedule's first steps."""
    for where, weight in given(system):
        if callable(weight):
            _check_schedule(system, where, weight)
        elif isinstance(weight, keras.Variable) and weight.shape != ():
            raise ValueError(
                f"{where} with a variable of shape {tuple(weight.shape)}, '{weight.path}'. Give "
                "one of shape ()."
            )
        elif isinstance(weight, numbers.Real) and not math.isfinite(weight):
            raise ValueError(f"{where} with {weight!r}. Give a finite number.")


def _check_schedule(system: Any, where: str, schedule: Any) -> None:
    name = f"{type(schedule).__name__} (a schedule)"
    counter = None if system.optimizer is None else system._mlsystem.batches_seen()
    for batch in _TRIED:
        before = f"after {batch} batches"
        try:
            count = ops.convert_to_tensor(batch, getattr(counter, "dtype", "int32"))
            found = np.asarray(ops.convert_to_numpy(schedule(count)))
        except Exception as error:
            raise ValueError(
                f"{where} with {name}, which fails {before}, given that number as an integer "
                f"tensor. {type(error).__name__}: {error}"
            ) from error
        if found.shape != () or found.dtype.kind not in "fiub":
            raise ValueError(
                f"{where} with {name}, which gives {_described(found)} {before}. Let it return one "
                "number, a scalar."
            )
        if not np.isfinite(found):
            raise ValueError(
                f"{where} with {name}, which gives {found} {before}. It must be finite from "
                "batch 0, the first one."
            )


def _described(found: Any) -> str:
    return f"an array of shape {found.shape}" if found.dtype.kind in "fiub" else repr(found.item())

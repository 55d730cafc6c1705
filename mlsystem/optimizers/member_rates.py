"""Learning rates of the members of an ensemble, as multiples of the rate of its optimizer."""

import contextlib
import math
import numbers
from collections.abc import Iterator, Sequence
from typing import Any

import keras
import numpy as np
from keras import ops

from mlsystem.engine import engine
from mlsystem.optimizers import optimizer_properties

# Their updates are no multiples of the learning rate.
_NOT_LINEAR = ("Ftrl",)


def check(multipliers: Any, count: int) -> list[float] | None:
    """Return the multipliers as floats. Raise an error if they are not one number a member."""
    if multipliers is None:
        return None
    found = list(multipliers) if isinstance(multipliers, (list, tuple, np.ndarray)) else []
    if len(found) != count or not all(map(_is_rate, found)):
        raise ValueError(
            f"Ensemble got learning_rate_multipliers={multipliers!r}. Give a list of {count} "
            "numbers from 0, one for each member."
        )
    return [float(each) for each in found]


def _is_rate(value: Any) -> bool:
    is_number = isinstance(value, numbers.Real) and not isinstance(value, bool)
    return is_number and math.isfinite(value) and value >= 0


def check_optimizer(name: str, optimizer: Any) -> None:
    """Raise an error if the rates of members cannot be multiples of that of an optimizer."""
    if found := optimizer_properties.used(optimizer, _NOT_LINEAR, ("use_ema",)):
        raise _refused(f"'{name}'", f"its optimizer uses {found[0]}")


def _check_weight(weight: Any) -> None:
    """Raise an error for a weight whose update is rounded or limited before it is multiplied."""
    if weight.constraint is not None:
        raise _refused("An ensemble", f"its weight '{weight.path}' has a constraint")
    if "16" in keras.backend.standardize_dtype(weight.dtype):
        raise _refused("An ensemble", f"its weight '{weight.path}' is stored as {weight.dtype}")


def _refused(what: str, why: str) -> ValueError:
    return ValueError(
        f"{what} has learning_rate_multipliers, and {why}: they do not work together. Leave the "
        "multipliers out, or train the members as models of their own."
    )


@contextlib.contextmanager
def scaled(weights: Sequence[Any], multipliers: Sequence[float]) -> Iterator[None]:
    """Multiply the update that is made inside, each member's part by its multiplier.

    The updates of all optimizers that are allowed are multiples of the learning rate, so that this
    equals a rate of its own for each member.
    """
    for weight in weights:
        _check_weight(weight)
    before = [engine.kept(weight.value) for weight in weights]
    yield
    for weight, old in zip(weights, before, strict=True):
        shape = (len(multipliers), *(1 for _ in weight.shape[1:]))
        factors = ops.reshape(ops.convert_to_tensor(multipliers, weight.dtype), shape)
        weight.assign(old + factors * (weight.value - old))

"""Assign variables only where a condition holds, by `ops.where` and not by a branch.

A branch with an assignment inside works on TensorFlow and in eager torch. On JAX it leaks tracers.
"""

import contextlib
import functools
from collections.abc import Callable, Iterable, Iterator
from typing import Any

import keras
from keras import ops


@contextlib.contextmanager
def only(
    condition: Any,
    variables: Iterable[Any],
    kept: Callable[[Any], Any],
    changed: Callable[[Any, Any], bool] = lambda value, old: True,
) -> Iterator[None]:
    """Let the code inside the context change variables only where the condition holds.

    `kept(value)` returns a value that later assignments do not change. `changed(value, old)`
    returns whether the engine may have assigned the variable meanwhile.
    """
    known = [] if condition is None else list(variables)
    before = [kept(variable.value) for variable in known]
    yield
    keep(condition, zip(known, before, strict=True), changed)


def keep(
    condition: Any,
    before: Iterable[tuple[Any, Any]],
    changed: Callable[[Any, Any], bool] = lambda value, old: True,
) -> None:
    """Reset variables to their earlier values, unless the condition holds.

    `changed(value, old)` returns whether the engine may have assigned the variable meanwhile.
    """
    for variable, old in before:
        if changed(variable.value, old):
            variable.assign(ops.where(condition, variable.value, old))


def all_of(conditions: Iterable[Any]) -> Any:
    """Return whether all conditions hold. None stands for a condition that always holds."""
    known = [condition for condition in conditions if condition is not None]
    return functools.reduce(ops.logical_and, known) if known else None


def any_of(conditions: list[Any]) -> Any:
    """Return whether at least one condition holds. None stands for one that always holds."""
    if any(condition is None for condition in conditions):
        return None
    found = conditions[0]
    for condition in conditions[1:]:
        found = found if condition is found else ops.logical_or(found, condition)
    return found


def scalar(value: Any, where: str) -> Any:
    """Return a condition as one boolean tensor. Raise an error if it is not a boolean scalar."""
    try:
        condition = ops.convert_to_tensor(value)
    except Exception as error:
        raise ValueError(
            f"{where} is of type {type(value).__name__}. Give one boolean, a scalar."
        ) from error
    dtype = keras.backend.standardize_dtype(condition.dtype)
    if len(condition.shape) == 0 and dtype != "bool":
        raise ValueError(
            f"{where} is of dtype {dtype}. Give one boolean, a scalar, as a comparison is."
        )
    if len(condition.shape) != 0:
        raise ValueError(
            f"{where} is of shape {tuple(condition.shape)}. Give one boolean, a scalar."
        )
    return condition

"""Assign variables only where a condition holds, by `ops.where` and not by a branch.

A branch with an assignment inside works on TensorFlow and in eager torch, and leaks tracers on JAX.
"""

import contextlib
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
    """Lets what happens inside change the variables only where the condition holds.

    `kept(value)` is a value that assignments leave as it is, and `changed(value, old)` says which
    may have been assigned meanwhile, by the engine.
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
    """Gives variables back the values of before, unless the condition holds.

    `changed(value, old)` says which may have been assigned meanwhile, by the engine.
    """
    for variable, old in before:
        if changed(variable.value, old):
            variable.assign(ops.where(condition, variable.value, old))


def both(a: Any, b: Any) -> Any:
    """Whether two conditions hold; None stands for one that always does."""
    if a is None or b is None:
        return b if a is None else a
    return ops.logical_and(a, b)


def any_of(conditions: list[Any]) -> Any:
    """Whether one of some conditions holds."""
    if any(condition is None for condition in conditions):
        return None
    found = conditions[0]
    for condition in conditions[1:]:
        found = found if condition is found else ops.logical_or(found, condition)
    return found


def scalar(value: Any, where: str) -> Any:
    """A condition as one boolean tensor; anything but a scalar is an error."""
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

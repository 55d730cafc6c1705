"""Checks of the arguments of `fit`, `evaluate` and `predict` that Keras passes on unchecked."""

import contextlib
import numbers
from collections.abc import Iterator, Mapping
from typing import Any

import numpy as np
from keras import ops, tree

from mlsystem._tensors import describe

_COUNTS = (
    *("batch_size", "steps_per_epoch", "steps", "validation_batch_size", "validation_steps"),
    *("validation_freq",),
)

_PLACE = "The error comes from: "


def check(given: Mapping[str, Any], method: str) -> None:
    """Refuses numbers that mean nothing, and data that are none."""
    for name in _COUNTS:
        _check_count(name, given.get(name), method, least=1)
    for name in ("epochs", "initial_epoch"):
        _check_count(name, given.get(name), method, least=0)
    _check_others(given, method)
    for name in ("x", "y", "sample_weight"):
        check_data(given.get(name), f"`{name}` of {method}")
    data = given.get("validation_data")  # a set that is None is refused by its name, elsewhere
    for part in data.values() if isinstance(data, Mapping) else [data]:
        check_data(part, f"`validation_data` of {method}")


def _check_count(name: str, value: Any, method: str, least: int) -> None:
    if value is None or (name == "validation_freq" and not isinstance(value, (int, float, str))):
        return  # Keras takes a list of epochs there
    if isinstance(value, bool) or not isinstance(value, numbers.Integral) or value < least:
        raise ValueError(f"{method} got {name}={value!r}; give a whole number from {least}.")


def _check_others(given: Mapping[str, Any], method: str) -> None:
    share, weights = given.get("validation_split"), given.get("class_weight")
    if share and not (isinstance(share, numbers.Real) and 0 < float(share) < 1):
        raise ValueError(f"{method} got validation_split={share!r}; give a share from 0 to 1.")
    if weights is not None and not isinstance(weights, Mapping):
        raise ValueError(f"{method} got class_weight={weights!r}; give a dict {{class: weight}}.")
    if isinstance(verbose := given.get("verbose"), str) and verbose != "auto":
        raise ValueError(f"{method} got verbose={verbose!r}; give 0, 1, 2 or 'auto'.")


def check_data(value: Any, what: str) -> None:
    """Refuses a class in the place of its instance, text, and what holds no arrays at all."""
    if isinstance(value, type):
        name = value.__name__
        raise ValueError(f"{what} is the class {name}. Give an instance of it: {name}().")
    if isinstance(value, (int, float, complex)):
        raise ValueError(f"{what} is the number {value!r}. Give arrays or a data set.")
    is_structure = isinstance(value, (str, list, tuple, Mapping, np.ndarray))
    leaves = tree.flatten(value) if is_structure else []
    if any(isinstance(leaf, (bool, int, float)) for leaf in leaves):
        raise ValueError(
            f"{what} is a {type(value).__name__} of numbers. Give an array: np.array(...)."
        )
    if (text := next(filter(_is_text, leaves), None)) is not None:
        raise ValueError(
            f"{what} holds text, or objects: {text!s:.60}. Give arrays of numbers, or a data set. "
            "Load files first. Turn words into numbers, as keras.layers.TextVectorization does."
        )
    if leaves and all(leaf is None for leaf in leaves):
        raise ValueError(f"{what} holds None in the place of arrays: {value!r}. Give arrays.")


def _is_text(leaf: Any) -> bool:
    """Whether it is text, or an array of text or objects that the backend has no tensors of."""
    if not isinstance(leaf, np.ndarray) or leaf.dtype.kind not in "USO":
        return isinstance(leaf, (str, bytes))
    try:
        ops.convert_to_tensor(leaf[:1])
    except Exception:
        return True
    return False


@contextlib.contextmanager
def named_in_errors(what: str, **structures: Any) -> Iterator[None]:
    """Has an error inside say where it came up; a KeyError also which keys exist."""
    try:
        yield
    except KeyError as error:
        found = "; ".join(f"{name} {_keys(held)}" for name, held in structures.items())
        raise ValueError(
            f"{what} asks for the key {error}, which does not exist: {found}."
        ) from error
    except Exception as error:
        if not any(note.startswith(_PLACE) for note in getattr(error, "__notes__", ())):
            found = ", ".join(f"{n} is {describe(held)}" for n, held in structures.items())
            error.add_note(f"{_PLACE}{what}." + (f" There {found}." if found else ""))
        raise


def _keys(held: Any) -> str:
    if isinstance(held, Mapping):
        return f"has {', '.join(map(repr, held)) or 'none'}"
    return f"is {describe(held)}"

"""Check that data are arrays: refuse text, plain numbers, classes and None."""

import inspect
from collections.abc import Mapping
from typing import Any

import keras
import numpy as np
from keras import ops, tree


def check_data(value: Any, what: str) -> None:
    """Raise an error if data is a class, a number or text, or holds no arrays."""
    if isinstance(value, type):
        name = value.__name__
        raise ValueError(f"{what} is the class {name}. Give an instance of it: {name}().")
    if inspect.isfunction(value) or inspect.ismethod(value):
        raise ValueError(
            f"{what} is the function `{value.__name__}`. Call it, as in `{value.__name__}()`, or "
            f"give ml.MLData(train={value.__name__}), which calls it in each epoch."
        )
    if isinstance(value, keras.Model):
        name = type(value).__name__
        raise ValueError(
            f"{what} is the model '{value.name}', a {name}. Give arrays or a data set."
        )
    if isinstance(value, keras.KerasTensor):
        raise ValueError(f"{what} is a KerasTensor, a shape without numbers. Give arrays.")
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
    """Return whether a leaf is text, or an array of text or objects that no tensor can hold."""
    if not isinstance(leaf, np.ndarray) or leaf.dtype.kind not in "USO":
        return isinstance(leaf, (str, bytes))
    try:
        ops.convert_to_tensor(leaf[:1])
    except Exception:
        return True
    return False

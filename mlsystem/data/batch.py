"""A batch as a step sees it: inputs, targets and sample weights as tensors of the backend."""

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

import keras
import numpy as np
from keras import ops, tree

from mlsystem import _keras
from mlsystem._tensors import tensor

UNKNOWN = 0, 1  # the range of whole numbers of which nothing is known


@dataclass
class Batch:
    """One batch of data.

    `x`, `y` and `sample_weight` are as in Keras: tensors or structures of tensors. `y` and
    `sample_weight` are None if the data has none.
    """

    x: Any
    y: Any
    sample_weight: Any

    @property
    def size(self) -> Any:
        """The number of samples, read from the first tensor of `x` that is not a scalar."""
        leaves = [leaf for leaf in tree.flatten(self.x) if leaf is not None and len(leaf.shape)]
        return ops.shape(leaves[0])[0]


def make_batch(data: Any) -> Batch:
    """Split a batch, `x`, `(x, y)` or `(x, y, sample_weight)`, as Keras does."""
    parts = keras.utils.unpack_x_y_sample_weight(data)
    return Batch(*(None if part is None else mapped(tensor, part) for part in parts))


def mapped(fn: Callable[[Any], Any], structure: Any) -> Any:
    """Apply a function to each leaf of a structure, faster than `tree.map_structure`.

    Each batch made in Python passes through here between two steps.
    """
    kind = type(structure)
    if kind is dict:
        return {name: mapped(fn, part) for name, part in structure.items()}
    if kind is tuple or kind is list:
        return kind([mapped(fn, part) for part in structure])
    is_leaf = hasattr(structure, "shape") and not isinstance(structure, tuple)
    return fn(structure) if is_leaf else tree.map_structure(fn, structure)


def array(leaf: Any) -> Any:
    """Return an array or tensor of any library as a NumPy array, and other leaves unchanged."""
    if isinstance(leaf, np.ndarray) or not hasattr(leaf, "__array__"):
        return leaf
    return np.asarray(leaf.cpu() if _keras.is_torch_tensor(leaf) else leaf)


def limits(leaf: Any) -> tuple[int, int]:
    """Return the range of the whole numbers in an array, of its first rows if it has many.

    It contains 0 and 1. It is `UNKNOWN` without whole numbers, and without numbers, as in a trace.

    >>> limits(np.array([3, 9, 5])), limits(np.array([0.5]))
    ((0, 9), (0, 1))
    """
    if leaf is None or "int" not in keras.backend.standardize_dtype(leaf.dtype):
        return UNKNOWN
    try:
        found = array(leaf[:10_000] if leaf.shape else leaf)
        return min(0, int(found.min())), max(1, int(found.max()))
    except Exception:
        return UNKNOWN


def own_entry(structure: Any, key: str) -> Any:
    """Return a model's own entry of `y` or of the outputs, if these are dicts with its key."""
    return structure[key] if isinstance(structure, dict) and key in structure else structure


def first_batch(data: Any) -> Any:
    """Return one batch of any data for `fit`: arrays unchanged, or a data set's first batch."""
    if isinstance(data, keras.utils.PyDataset):
        return data[0]
    if isinstance(data, (tuple, list, dict)) or hasattr(data, "shape"):
        return data
    return next(_iterator(data))


def _iterator(data: Any) -> Iterator[Any]:
    try:
        return iter(data)
    except TypeError:
        raise TypeError(
            f"setup takes one batch, or a data set that yields batches; found {type(data)}."
        ) from None

"""A batch as a step sees it: inputs, targets and sample weights as tensors of the backend."""

import functools
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import keras
from keras import ops, tree

from mlsystem._tensors import tensor


@dataclass
class Batch:
    """One batch of data.

    `x`, `y` and `sample_weight` are as in Keras: tensors or structures of tensors, None where
    the data has none.
    """

    x: Any
    y: Any
    sample_weight: Any

    @functools.cached_property
    def size(self) -> Any:
        """The number of samples, read from the first tensor of `x` that is no scalar."""
        leaves = [leaf for leaf in tree.flatten(self.x) if leaf is not None and len(leaf.shape)]
        return ops.shape(leaves[0])[0]


def make_batch(data: Any) -> Batch:
    """Splits what a data set yields, `x`, `(x, y)` or `(x, y, sample_weight)`, as Keras does."""
    parts = keras.utils.unpack_x_y_sample_weight(data)
    return Batch(*(tree.map_structure(tensor, part) for part in parts))


def own_entry(structure: Any, key: str) -> Any:
    """A model's own entry of `y` or of the outputs, where these are dicts with its key."""
    return structure[key] if isinstance(structure, dict) and key in structure else structure


def first_batch(data: Any) -> Any:
    """One batch of anything that `fit` takes: arrays as they are, of a data set the first."""
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

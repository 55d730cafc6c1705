"""Convert arrays to tensors of the backend, and describe their shapes in error messages."""

from typing import Any

import keras
import numpy as np
from keras import ops, tree


def tensor(leaf: Any) -> Any:
    """Return a leaf as a tensor. NumPy double precision becomes Keras' float, as in Keras."""
    if not hasattr(leaf, "__array__") or not hasattr(leaf, "dtype"):
        return leaf
    double = isinstance(leaf, np.ndarray) and leaf.dtype == np.float64
    return ops.convert_to_tensor(leaf, dtype=keras.config.floatx() if double else None)


def describe(structure: Any) -> str:
    """Describe a structure of arrays for messages: shapes and dtypes in place of numbers."""
    return str(tree.map_structure(_describe_leaf, structure))


def _describe_leaf(leaf: Any) -> Any:
    if not hasattr(leaf, "shape"):
        return leaf
    try:
        dtype = keras.backend.standardize_dtype(leaf.dtype)
    except ValueError:  # the dtype of text
        dtype = leaf.dtype
    return f"{dtype}{list(leaf.shape)}"

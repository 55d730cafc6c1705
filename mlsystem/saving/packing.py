"""Serialize nested structures as JSON and arrays, for checkpoints."""

from collections.abc import Mapping
from typing import Any

import keras
import numpy as np
from keras import ops

_PLAIN = (bool, int, float, str, type(None))


def pack(value: Any, arrays: list[Any]) -> Any:
    """Return a structure as JSON values. Append its arrays to a list, without a copy.

    >>> arrays = []
    >>> pack({"a": (1, np.zeros(2))}, arrays)
    {'dict': [['a', {'tuple': [1, {'array': 0}]}]]}
    >>> unpack({'dict': [['a', {'tuple': [1, {'array': 0}]}]]}, arrays)
    {'a': (1, array([0., 0.]))}

    Raises:
        TypeError: if the structure holds another kind of value.
    """
    if type(value) in _PLAIN:
        return value
    if isinstance(value, Mapping):
        return {"dict": [[pack(k, arrays), pack(v, arrays)] for k, v in value.items()]}
    if isinstance(value, list):
        return [pack(item, arrays) for item in value]
    if type(value) is tuple:
        return {"tuple": [pack(item, arrays) for item in value]}
    if isinstance(value, bytes):
        return {"bytes": value.hex()}
    return _pack_array(value, arrays)


def _pack_array(value: Any, arrays: list[Any]) -> Any:
    kind = "tensor" if ops.is_tensor(value) else "array"
    if kind == "array" and not isinstance(value, (np.ndarray, np.generic)):
        raise TypeError(f"{value!r}, a {type(value).__name__}, cannot be kept in a checkpoint.")
    array = np.asarray(ops.convert_to_numpy(value) if kind == "tensor" else value)
    if array.dtype.kind not in "biuf":
        raise TypeError(f"An array of dtype {array.dtype} cannot be kept in a checkpoint.")
    arrays.append(array)
    return {kind: len(arrays) - 1}


def unpack(packed: Any, arrays: Any) -> Any:
    """Return the structure that `pack` packed."""
    if isinstance(packed, list):
        return [unpack(item, arrays) for item in packed]
    if not isinstance(packed, dict):
        return packed
    [(kind, value)] = packed.items()
    return _UNPACK[kind](value, arrays)


def _tensor(index: int, arrays: Any) -> Any:
    with keras.device("cpu:0"):
        return ops.convert_to_tensor(arrays[index])


_UNPACK = {
    "dict": lambda pairs, arrays: {unpack(k, arrays): unpack(v, arrays) for k, v in pairs},
    "tuple": lambda items, arrays: tuple(unpack(item, arrays) for item in items),
    "bytes": lambda text, arrays: bytes.fromhex(text),
    "array": lambda index, arrays: arrays[index],
    "tensor": _tensor,
}

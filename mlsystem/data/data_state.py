"""`DataState`: read and restore a data set's own state (order, generators) for checkpoints.

The state of a data set is the first of these that exists:

- the state that `get_state` and `set_state`, or `state_dict` and `load_state_dict`, exchange
- the generator of a torch data loader
- some attributes of a `keras.utils.PyDataset`: random generators, orders (lists and vectors of
  integers), and numbers and strings that have changed since training started.
"""

import copy
from typing import Any

import keras
import numpy as np

from mlsystem.data import transform_generators
from mlsystem.data.adapter import BatchAdapter

_PAIRS = (("get_state", "set_state"), ("state_dict", "load_state_dict"))


class DataState:
    """The reader and writer of the state of one data set.

    Args:
        data: the data given to `fit`.
    """

    def __init__(self, data: Any) -> None:
        self.holder, self.pair = _holder(data)
        self.attributes = data if isinstance(data, keras.utils.PyDataset) else None
        # A path may differ after a resume. Values drawn at random at creation must not.
        self.start = {n: v for n, v in _attributes(self.attributes).items() if _is_plain(v)}

    def read(self) -> Any:
        """Return the state, as numbers and arrays. None for a data set without a state."""
        if self.pair is not None:
            return copy.deepcopy(getattr(self.holder, self.pair[0])())
        now = _attributes(self.attributes)
        return {n: v for n, v in now.items() if not _is_plain(v) or v != self.start.get(n)}

    def write(self, state: Any) -> None:
        """Restore the state."""
        if self.pair is not None:
            getattr(self.holder, self.pair[1])(state)
            return
        for name, value in (state or {}).items():
            _set(self.attributes, name, value)

    def catch_up(self, state: Any) -> None:
        """Restore the state of a transform, after the batches up to the state are read again.

        Evaluations between these batches are not repeated, but may have drawn from it too.
        """
        if isinstance(self.holder, BatchAdapter):
            self.holder.catch_up(state)


def _holder(data: Any) -> tuple[Any, tuple[str, str] | None]:
    # A generator in a PyDataset is one of its attributes.
    inner = None if isinstance(data, keras.utils.PyDataset) else getattr(data, "generator", None)
    for holder in (data, inner):
        for pair in _PAIRS:
            if all(callable(getattr(holder, name, None)) for name in pair):
                return holder, pair
    return None, None


def _attributes(data: Any) -> dict[str, Any]:
    known = vars(keras.utils.PyDataset()) if data is not None else {}
    found = {n: _value(v) for n, v in getattr(data, "__dict__", {}).items() if n not in known}
    return {name: value for name, value in found.items() if value is not None}


def _value(value: Any) -> Any:
    """Return a copy of an attribute's value, if its kind is saved."""
    if transform_generators.is_generator(value):
        return {"generator": transform_generators.read(value)}
    if isinstance(value, np.ndarray):
        return value.copy() if value.ndim == 1 and value.dtype.kind in "iu" else None
    if isinstance(value, list):
        return list(value) if all(type(item) is int for item in value) else None
    return value if _is_plain(value) else None


def _is_plain(value: Any) -> bool:
    return isinstance(value, (bool, int, float, str))


def _set(data: Any, name: str, value: Any) -> None:
    if isinstance(value, dict):
        transform_generators.write(getattr(data, name), value["generator"])
    else:
        setattr(data, name, value)

"""What a data set remembers between batches, where it can be read and set again.

That is, in this order: what its `get_state` and `set_state`, or its `state_dict` and
`load_state_dict`, exchange; the generator of a torch data loader; of a `keras.utils.PyDataset`,
the attributes that have changed since training began and are numbers, strings, orders (lists
and vectors of integers) or random generators.
"""

import random
from typing import Any

import keras
import numpy as np

_PAIRS = (("get_state", "set_state"), ("state_dict", "load_state_dict"))


class DataState:
    """Reads and sets the state of one data set.

    Args:
        data: what was given to `fit`.
    """

    def __init__(self, data: Any) -> None:
        self.holder, self.pair = _holder(data)
        self.attributes = data if isinstance(data, keras.utils.PyDataset) else None
        self.start = _attributes(self.attributes)

    def read(self) -> Any:
        """The state, as numbers and arrays; None for a data set that has none."""
        if self.pair is not None:
            return getattr(self.holder, self.pair[0])()
        now = _attributes(self.attributes)
        return {name: v for name, v in now.items() if not _same(v, self.start.get(name))}

    def write(self, state: Any) -> None:
        """Sets the state again."""
        if self.pair is not None:
            getattr(self.holder, self.pair[1])(state)
            return
        for name, value in (state or {}).items():
            _set(self.attributes, name, value)


def _holder(data: Any) -> tuple[Any, tuple[str, str] | None]:
    for holder in (data, getattr(data, "generator", None)):
        for pair in _PAIRS:
            if all(callable(getattr(holder, name, None)) for name in pair):
                return holder, pair
    return None, None


def _attributes(data: Any) -> dict[str, Any]:
    known = vars(keras.utils.PyDataset()) if data is not None else {}
    found = {n: _value(v) for n, v in getattr(data, "__dict__", {}).items() if n not in known}
    return {name: value for name, value in found.items() if value is not None}


def _value(value: Any) -> Any:
    """A copy of what an attribute holds, if it is of a kind that is kept."""
    if isinstance(value, np.random.Generator):
        return {"generator": value.bit_generator.state}
    if isinstance(value, np.random.RandomState):
        return {"generator": value.get_state(legacy=False)}
    if isinstance(value, random.Random):
        return {"generator": value.getstate()}
    if isinstance(value, np.ndarray):
        return value.copy() if value.ndim == 1 and value.dtype.kind in "iu" else None
    if isinstance(value, list):
        return list(value) if all(type(item) is int for item in value) else None
    return value if isinstance(value, (bool, int, float, str)) else None


def _set(data: Any, name: str, value: Any) -> None:
    generator = getattr(data, name, None)
    if not isinstance(value, dict):
        setattr(data, name, value)
    elif isinstance(generator, np.random.Generator):
        generator.bit_generator.state = value["generator"]
    elif isinstance(generator, np.random.RandomState):
        generator.set_state(value["generator"])
    else:
        generator.setstate(value["generator"])  # type: ignore[union-attr]


def _same(a: Any, b: Any) -> bool:
    if isinstance(a, dict) and isinstance(b, dict):
        return a.keys() == b.keys() and all(_same(a[key], b[key]) for key in a)
    if isinstance(a, np.ndarray):
        return bool(np.array_equal(a, b))
    return type(a) is type(b) and bool(a == b)

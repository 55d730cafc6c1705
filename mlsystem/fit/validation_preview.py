"""Read the first validation batches before training, and restore the data's state."""

import contextlib
from collections.abc import Iterator, Mapping
from typing import Any

import keras
from keras import tree

from mlsystem import _keras
from mlsystem.data import transform_generators
from mlsystem.data.adapter import BatchAdapter
from mlsystem.data.data_state import DataState
from mlsystem.data.source import Source
from mlsystem.engine import random_state

Given = Mapping[str, Any]


def is_due(given: Given) -> bool:
    """Return whether a `fit` with these arguments ever validates."""
    first, last, every = (given[n] for n in ("initial_epoch", "epochs", "validation_freq"))
    due = range(every, last + 1, every) if isinstance(every, int) else every
    return given["validation_data"] is not None and any(first < epoch <= last for epoch in due)


def named(name: str) -> str:
    """Return a validation set in words. The only set has the name ""."""
    return f"The validation set '{name}'" if name else "The validation data"


def look(given: Given) -> tuple[Any, dict[str, list[Any]]]:
    """Return the validation data of a `fit` and the first batches of each set. No batch is lost."""
    data = given["validation_data"]
    sets = {
        name: _readable(part, given["x"])
        for name, part in (data if isinstance(data, Mapping) else {"": data}).items()
    }
    size = given["validation_batch_size"] or given["batch_size"] or 32
    found = {name: _first(part, named(name), size) for name, part in sets.items()}
    found = {name: batches for name, batches in found.items() if batches}
    return sets if isinstance(data, Mapping) else sets[""], found


def _readable(data: Any, trained: Any) -> Any:
    """Return the data, or Keras' adapter of a generator, which would lose its first batches."""
    is_once = _keras.kind_of_data(data) == "generator" and data is not trained
    return _keras.data_adapter(data) if is_once else data


def _first(data: Any, what: str, size: int) -> list[Any]:
    """Return one batch of each structure of a set, or none if it can be read only once."""
    if _keras.kind_of_data(data) == "generator":
        return []
    if isinstance(data, BatchAdapter):
        return data.examples()
    x, y, weight = keras.utils.unpack_x_y_sample_weight(data)
    if y is None and weight is not None:
        raise ValueError(f"{what} has sample weights and no y. Give (x, y, sample_weight).")
    parts = [part for part in (x, y, weight) if part is not None]
    whole = parts[0] if len(parts) == 1 and not isinstance(parts[0], tuple) else tuple(parts)
    if _keras.kind_of_data(whole) == "arrays":
        whole = _head(whole, size)
    with _untouched(whole):
        return Source(whole, what, size).examples()


def _head(arrays: Any, size: int) -> Any:
    """Return the first samples of arrays, if the arrays have equal lengths."""
    lengths = {leaf.shape[0] if getattr(leaf, "shape", ()) else 0 for leaf in tree.flatten(arrays)}
    return tree.map_structure(lambda leaf: leaf[:size], arrays) if len(lengths) == 1 else arrays


@contextlib.contextmanager
def _untouched(data: Any) -> Iterator[None]:
    """Restore all random generators and the data's state after data are read in this context."""
    holders = [getattr(owner, "__dict__", {}) for owner in (data, getattr(data, "dataset", None))]
    held = [v for parts in holders for v in parts.values() if transform_generators.is_generator(v)]
    state, random, seed = DataState(data), random_state.state(), random_state.seed()
    before = state.read() if state.pair else state.start | state.read()
    with transform_generators.kept(held):
        try:
            yield
        finally:
            state.write(before)
            random_state.restore(random)
            random_state.set_seed(seed)
            if seed is None:
                _keras.forget_global_seed()

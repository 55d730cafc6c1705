"""`Source`: read any data that `fit` takes, in batches, epoch after epoch."""

import functools
import itertools
from collections.abc import Callable, Iterable, Iterator
from typing import Any

import keras
import numpy as np
from keras import ops

from mlsystem import _keras
from mlsystem.data.adapter import BatchAdapter
from mlsystem.data.batch import array, mapped
from mlsystem.data.data_state import DataState
from mlsystem.engine import random_state

TAKEN = (
    "arrays, (x, y[, sample_weight]), a dict of arrays, a keras.utils.PyDataset, "
    "a tf.data.Dataset, a torch DataLoader, a Grain data set, a generator, or a function that "
    "returns one of these"
)


class Source:
    """Any data that `fit` takes, as an iterable of one epoch. Shuffled arrays change their order.

    Args:
        data: data as `fit` takes it as x. A tuple is (x, y[, sample_weight]). A function is called
            and returns the data. A function that returns a generator is called for each epoch.
        what: the name of the data in messages.
        batch_size: batch size of arrays, also in an `ml.Streams` without a batch size for them.
        shuffle: whether to shuffle arrays and a PyDataset, as in `fit`.
        drop_last: whether to leave out the last batch of arrays, if it is smaller and not the
            only batch.
        class_weight: as in `fit`.

    Raises:
        TypeError: `fit` would not take the data.
        ValueError: the data are empty.
    """

    def __init__(
        self,
        data: Any,
        what: str,
        batch_size: Any = None,
        shuffle: Any = False,
        drop_last: bool = False,
        class_weight: Any = None,
    ) -> None:
        self.what, self.data = what, data
        self.options = {"batch_size": batch_size, "shuffle": shuffle, "drop_last": drop_last}
        self.class_weight = class_weight
        self.adapter: Any = None
        self.again: Callable[[], Any] | None = None
        self.once: _Once | None = None
        self.has_arrays = False
        self.length: int | None = None
        self.under_way = False
        if is_function(data):
            self.data = data()
        if isinstance(self.data, BatchAdapter) and batch_size is not None:
            self.data = self.data.sized(batch_size)
        if _keras.kind_of_data(self.data) == "generator":
            self._set_generator(data)
        else:
            self._set_adapter(batch_size, shuffle, drop_last, class_weight)
        self.state = DataState(self.data)
        if self.length == 0:
            raise self._empty()

    def in_order(self) -> "Source":
        """Return the same data, not shuffled and with the last batch."""
        if self.adapter is None:
            return self
        data = self.data.in_order() if isinstance(self.data, BatchAdapter) else self.data
        size = self.options["batch_size"]
        return Source(data, self.what, size, class_weight=self.class_weight)

    def sized(self, batch_size: int) -> "Source":
        """Return the data in batches of this size, or itself if it makes batches of its own."""
        data = self.data.sized(batch_size) if isinstance(self.data, BatchAdapter) else self.data
        is_open = self.has_arrays and self.options["batch_size"] is None
        if data is self.data and not is_open:
            return self
        given = self.options | {"batch_size": batch_size, "class_weight": self.class_weight}
        return Source(data, self.what, **given)

    def _set_generator(self, given: Any) -> None:
        if given is self.data:
            self.once = _Once(given)
        else:
            self.again = given

    def _set_adapter(self, batch_size: Any, shuffle: Any, drop_last: bool, weight: Any) -> None:
        kind, parts = read(self.data, self.what)
        self.has_arrays = kind == "arrays"
        orders = self.has_arrays or isinstance(self.data, keras.utils.PyDataset)
        self.shuffles = shuffle and orders
        self.make = functools.partial(
            _keras.data_adapter,
            *parts,
            batch_size=batch_size if self.has_arrays else None,
            shuffle=self.shuffles,
            class_weight=weight,
        )
        self.adapter = self.make()
        self.length = self.adapter.num_batches
        if drop_last and self.has_arrays and self.adapter.has_partial_batch:
            self.length = max(self.length - 1, 1)

    def __iter__(self) -> Iterator[Any]:
        self.stop()  # ends an epoch that was interrupted
        self.under_way = True
        drawn = 0
        for drawn, batch in enumerate(self._epoch(), 1):
            if drawn == self.length:
                self.stop()  # now, because the reader may not ask for another batch
            yield standard(batch)
            if drawn == self.length:
                return
        self.stop()
        if not drawn:
            raise self._empty()

    def _epoch(self) -> Iterable[Any]:
        if self.once is not None:
            return self.once
        if self.again is not None:
            return self.again()
        if isinstance(self.data, keras.utils.PyDataset):
            self.adapter = self.make()  # workers keep batches of an interrupted epoch
        if self.shuffles:
            _keras.draw_order(self.adapter)
        self.adapter.on_epoch_begin()
        return _keras.batches(self.adapter)

    def stop(self) -> None:
        """End an epoch, if one is in progress."""
        if self.under_way and self.adapter is not None:
            self.adapter.on_epoch_end()
        self.under_way = False

    def _empty(self) -> ValueError:
        if self.once is not None and self.once.read:
            return ValueError(
                f"{self.what} ended after {self.once.read} batches, and a generator cannot start "
                "over. Give the function that returns it, or one that never ends."
            )
        return ValueError(f"{self.what} is empty: it yields no batch.")

    def examples(self) -> list[Any]:
        """Return one batch of each structure in the data, without losing a batch."""
        if isinstance(self.data, BatchAdapter):
            return self.data.examples()
        if self.once is not None:
            return [standard(batch) for batch in self.once.peek()] or self._raise_empty()
        if isinstance(self.data, keras.utils.PyDataset):
            return [standard(self.data[0])]
        before = random_state.state()
        try:
            return list(itertools.islice(self, 1))
        finally:
            self.stop()
            random_state.restore(before)

    def _raise_empty(self) -> Any:
        raise self._empty()

    def get_state(self) -> dict[str, Any]:
        """Return the state behind the next epoch, except the process' random generators."""
        read = self.once.read if self.once is not None else 0
        return {"under_way": self.under_way, "read": read, "data": self.state.read()}

    def set_state(self, state: dict[str, Any]) -> None:
        """Restore a state. A generator is read up to the position of the state."""
        self.under_way = state["under_way"]
        self.state.write(state["data"])
        if self.once is not None:
            self.once.go_to(state["read"])


class _Once:
    """A generator that continues where it stopped, with a preview of its next batch."""

    def __init__(self, batches: Iterator[Any]) -> None:
        self.batches, self.read = batches, 0

    def __iter__(self) -> Iterator[Any]:
        for batch in self.batches:
            self.read += 1
            yield batch

    def peek(self) -> list[Any]:
        first = list(itertools.islice(self.batches, 1))
        self.batches = itertools.chain(first, self.batches)
        return first

    def go_to(self, read: int) -> None:
        for _ in itertools.islice(self, max(read - self.read, 0)):
            pass


def is_function(data: Any) -> bool:
    """Return whether the data is a function that returns the data."""
    return callable(data) and _keras.kind_of_data(data) is None


def read(data: Any, what: str) -> tuple[str, tuple[Any, ...]]:
    """Return the kind of some data, and x, y and sample_weight as `fit` takes them."""
    parts = data if isinstance(data, tuple) else (data,)
    kind = _keras.kind_of_data(data) if len(parts) in (1, 2, 3) and parts[0] is not None else None
    if kind is None:
        found = [type(part).__name__ for part in parts]
        listed = f"({', '.join(found)})" if isinstance(data, tuple) else found[0]
        raise TypeError(f"{what} is {listed}, which `fit` does not take. Give {TAKEN}.")
    return kind, parts


def standard(batch: Any) -> Any:
    """Return a batch of NumPy arrays. Tensors of the backend stay tensors.

    Double precision becomes Keras' default float type, as in Keras' own array data.
    """
    return mapped(_standard, batch)


def _standard(leaf: Any) -> Any:
    if not isinstance(leaf, np.ndarray) and ops.is_tensor(leaf):
        return ops.cast(leaf, keras.config.floatx()) if "float64" in str(leaf.dtype) else leaf
    return single(array(leaf))


def single(leaf: Any) -> Any:
    """Return a leaf. A NumPy array of double precision becomes Keras' default float type."""
    is_double = isinstance(leaf, np.ndarray) and leaf.dtype == np.float64
    return leaf.astype(keras.config.floatx()) if is_double else leaf

"""One data set of any kind that `fit` takes, read in batches again and again."""

import functools
import itertools
from collections.abc import Callable, Iterable, Iterator
from typing import Any

import keras
import numpy as np
from keras import ops

from mlsystem import _keras, randomness
from mlsystem.data import array, mapped
from mlsystem.data_state import DataState
from mlsystem.feed import Feed

TAKEN = (
    "arrays, (x, y[, sample_weight]), a dict of arrays, a keras.utils.PyDataset, "
    "a tf.data.Dataset, a torch DataLoader, a Grain data set, a generator, or a function that "
    "returns one of these"
)


class Source:
    """Iterating it gives one epoch. Arrays are put into another order in each, if at all.

    Args:
        data: what `fit` takes as x; a tuple is (x, y[, sample_weight]). A function is called for
            it; one that returns a generator is called again for each epoch.
        what: its name in messages.
        batch_size: of arrays, and of those in an `ml.Streams` that has none for them.
        shuffle: of arrays and of a PyDataset, as in `fit`.
        drop_last: whether to leave out the last batch of arrays where it is smaller, and not the
            only one.
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
        if isinstance(self.data, Feed) and batch_size is not None:
            self.data = self.data.sized(batch_size)
        if _keras.kind_of_data(self.data) == "generator":
            self._set_generator(data)
        else:
            self._set_adapter(batch_size, shuffle, drop_last, class_weight)
        self.state = DataState(self.data)
        if self.length == 0:
            raise self._empty()

    def in_order(self) -> "Source":
        """The same data, not shuffled and with the last batch."""
        if self.adapter is None:
            return self
        data = self.data.in_order() if isinstance(self.data, Feed) else self.data
        size = self.options["batch_size"]
        return Source(data, self.what, size, class_weight=self.class_weight)

    def sized(self, batch_size: int) -> "Source":
        """The same data in batches of a size, where they have none of their own; else itself."""
        data = self.data.sized(batch_size) if isinstance(self.data, Feed) else self.data
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
        self.stop()  # an epoch that was broken off
        self.under_way = True
        drawn = 0
        for drawn, batch in enumerate(self._epoch(), 1):
            if drawn == self.length:
                self.stop()  # now: nobody may ask for another one
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
            self.adapter = self.make()  # workers keep what they read for an epoch broken off
        if self.shuffles:
            _keras.draw_order(self.adapter)
        self.adapter.on_epoch_begin()
        return _keras.batches(self.adapter)

    def stop(self) -> None:
        """Ends an epoch, if one is under way."""
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
        """One batch of each structure that the data has, of which none is lost."""
        if isinstance(self.data, Feed):
            return self.data.examples()
        if self.once is not None:
            return [standard(batch) for batch in self.once.peek()] or self._raise_empty()
        if isinstance(self.data, keras.utils.PyDataset):
            return [standard(self.data[0])]
        before = randomness.state()
        try:
            return list(itertools.islice(self, 1))
        finally:
            self.stop()
            randomness.restore(before)

    def _raise_empty(self) -> Any:
        raise self._empty()

    def get_state(self) -> dict[str, Any]:
        """What the next epoch depends on, beside the random generators of the process."""
        read = self.once.read if self.once is not None else 0
        return {"under_way": self.under_way, "read": read, "data": self.state.read()}

    def set_state(self, state: dict[str, Any]) -> None:
        """Goes to where the state was taken; a generator is read up to there."""
        self.under_way = state["under_way"]
        self.state.write(state["data"])
        if self.once is not None:
            self.once.go_to(state["read"])


class _Once:
    """A generator, which goes on where it was left, and can be looked into."""

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
    """Whether the data are what a function returns."""
    return callable(data) and _keras.kind_of_data(data) is None


def read(data: Any, what: str) -> tuple[str, tuple[Any, ...]]:
    """The kind of some data, and x, y and sample_weight as `fit` takes them."""
    parts = data if isinstance(data, tuple) else (data,)
    kind = _keras.kind_of_data(data) if len(parts) in (1, 2, 3) and parts[0] is not None else None
    if kind is None:
        found = [type(part).__name__ for part in parts]
        listed = f"({', '.join(found)})" if isinstance(data, tuple) else found[0]
        raise TypeError(f"{what} is {listed}, which `fit` does not take. Give {TAKEN}.")
    return kind, parts


def standard(batch: Any) -> Any:
    """A batch of NumPy arrays, and of tensors of the backend where the data set yields such.

    Double precision becomes Keras' float, as Keras makes it of arrays.
    """
    return mapped(_standard, batch)


def _standard(leaf: Any) -> Any:
    if not isinstance(leaf, np.ndarray) and ops.is_tensor(leaf):
        return ops.cast(leaf, keras.config.floatx()) if "float64" in str(leaf.dtype) else leaf
    return single(array(leaf))


def single(leaf: Any) -> Any:
    """A leaf whose double precision, if it is a NumPy array, is Keras' float."""
    is_double = isinstance(leaf, np.ndarray) and leaf.dtype == np.float64
    return leaf.astype(keras.config.floatx()) if is_double else leaf

"""`IndexedBatches`: the batches of arrays in one epoch, also many at a time as one window.

A window is a block of shape (batches, batch size, ...) that stays on the device. One program runs
any number of its batches. The shape of a window hardly depends on the number of samples, so that
other data rarely need another program.
"""

from collections.abc import Callable, Iterator
from itertools import islice
from typing import Any

import numpy as np
from keras import tree

MOST_BATCHES = 128
MOST_BYTES = 2**24


class IndexedBatches:
    """The batches of one epoch, in the order that Keras draws.

    Attributes:
        group: the number of batches of the next step.
        most: the largest number of batches that the compiled step wants in one group.
        insists: whether groups are wanted even where they are slower.

    Args:
        arrays: a structure of NumPy arrays. A part may be None.
        rows: the row numbers of each batch, in order. It is not read before the first batch.
        batch_size: the number of rows of a full batch.
        gather: a function of row numbers, which returns these rows of the arrays on the device.
    """

    # Arrays never end within a group, and raise no error.
    missing = 0
    error: Exception | None = None

    def __init__(
        self, arrays: Any, rows: Iterator[Any], batch_size: int, gather: Callable[[Any], Any]
    ) -> None:
        self.arrays, self.rows, self.batch_size, self.gather = arrays, rows, batch_size, gather
        self.group = self.most = 1
        self.insists = False
        self.size = window_size(arrays, batch_size)
        self.full = _length(arrays) // batch_size
        self.position = 0  # the number of batches before the next one
        self.ahead: list[Any] = []  # the row numbers of the next batches
        self.window: Any = None
        self.first = 0  # the next batch in the window

    def __iter__(self) -> "IndexedBatches":
        return self

    def __next__(self) -> Any:
        """Return the next batch, as Keras does."""
        batch = self.peek()
        if batch is None:
            raise StopIteration
        self.move(1)
        return batch

    def runs(self) -> Iterator[tuple[int, int]]:
        """Return an iterator of the parts of the next group with equal shapes: all of it."""
        return iter([(0, self.group)])

    def peek(self) -> Any:
        """Return the next batch and stay before it. None at the end of the data."""
        if not self._read(1):
            return None
        rows = self.ahead[0]
        return mapped(lambda array: array[rows], self.arrays)

    def move(self, batches: int) -> None:
        """Move on by some batches."""
        del self.ahead[:batches]
        self.position += batches
        self.first += batches
        if self.first >= self.size or not self.ahead:
            self.window = None

    def ready(self) -> int:
        """Return how many of the next batches fit one window. 0 for a shorter last batch."""
        used = 0 if self.window is None else self.first
        return max(0, min(self.full - self.position, self.size - used))

    def current(self) -> tuple[Any, int]:
        """Return the window that holds the next batches, and the position of the first of them."""
        if self.window is None:
            count = self.ready()
            self._read(count)
            missing = (self.size - count) * self.batch_size  # rows on which no step runs
            rows = np.concatenate([*self.ahead[:count], np.zeros(missing, int)])
            self.window = self.gather(rows.reshape(self.size, self.batch_size))
            self.first = 0
        return self.window, self.first

    def _read(self, batches: int) -> bool:
        self.ahead += islice(self.rows, max(0, batches - len(self.ahead)))
        return bool(self.ahead)


def window_size(arrays: Any, batch_size: int) -> int:
    """Return the number of batches in a window: a power of two, at most as many as there are.

    It is below 2 if a window is of no use.
    """
    leaves = [leaf for leaf in tree.flatten(arrays) if leaf is not None]
    full = _length(arrays) // batch_size
    row = sum(leaf.nbytes // max(1, len(leaf)) for leaf in leaves)
    fitting = min(MOST_BATCHES, MOST_BYTES // max(1, row * batch_size))
    most = 2 ** (fitting.bit_length() - 1) if fitting else 0
    return min(most, 2 ** (full - 1).bit_length()) if full > 1 else 0


def mapped(fn: Callable[[Any], Any], arrays: Any) -> Any:
    """Apply a function to each array of a structure, and keep what is None."""
    return tree.map_structure(lambda leaf: None if leaf is None else fn(leaf), arrays)


def _length(arrays: Any) -> int:
    return len(next(leaf for leaf in tree.flatten(arrays) if leaf is not None))

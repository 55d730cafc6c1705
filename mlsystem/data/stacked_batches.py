"""`StackedBatches`: the batches of any data, also several at a time as one window.

A window is a block of shape (batches, batch size, ...). Its size depends on the shapes of a batch
only, so that one program runs any number of batches. No batch is drawn before its group begins.
"""

from collections.abc import Iterator
from itertools import islice, takewhile
from typing import Any

import numpy as np
from keras import tree

from mlsystem.data.indexed_batches import MOST_BATCHES, mapped

MOST_BYTES = 2**22
_LINE = 64  # bytes; JAX does not copy arrays on a CPU that begin at a multiple of it


class StackedBatches:
    """The batches of an iterator, in order.

    Attributes:
        group: the number of batches of the next step.
        most: the largest number of batches that the compiled step wants in one group.
        insists: whether groups are wanted even where they are slower.
        size: the number of batches in a window of the next run. Below 2, there is no window.
        arrays: the first batch of the next run, as a window of one batch.

    Args:
        batches: the iterator.
    """

    insists = False
    batch_size = None  # the shapes of `arrays` hold it

    def __init__(self, batches: Iterator[Any]) -> None:
        self.batches = batches
        self.group = self.most = self.size = 1
        self.arrays: Any = None
        self.ahead: list[Any] = []  # the batches of the present group that have not run
        self.missing = 0  # how many batches the data lacked for the group
        self.error: Exception | None = None  # raised once the batches before it have run

    def __iter__(self) -> "StackedBatches":
        return self

    def __next__(self) -> Any:
        """Return the next batch, as Keras does."""
        self._draw(1)
        if not self.ahead:
            raise StopIteration
        return self.ahead.pop(0)

    def peek(self) -> Any:
        """Return the next batch and stay before it. None at the end of the data."""
        self._draw(1)
        return self.ahead[0] if self.ahead else None

    def runs(self) -> Iterator[tuple[int, int]]:
        """Draw the next group. Return an iterator of its parts of equal shapes, as ranges in it.

        Raises:
            StopIteration: at the end of the data.
        """
        self._draw(self.group)
        if not self.ahead:
            raise StopIteration
        self.missing = self.group - len(self.ahead)
        return self._runs()

    def _runs(self) -> Iterator[tuple[int, int]]:
        start = 0
        while self.ahead:
            self.size = window_size(self.ahead[0])
            self.arrays = mapped(lambda leaf: leaf[None], self.ahead[0]) if self.size > 1 else ()
            stop = start + min(len(self._run()), max(1, self.size))
            yield start, stop
            start = stop

    def ready(self) -> int:
        """Return how many of the next batches may form a group."""
        return self.size

    def current(self) -> tuple[Any, int]:
        """Return a window that holds the next run, and the position of its first batch."""
        return _window(self._run()[: self.size], self.size), 0

    def move(self, batches: int) -> None:
        """Move on by some batches."""
        del self.ahead[:batches]

    def _run(self) -> list[Any]:
        """Return the next batches of equal shapes."""
        shapes = _shapes(self.ahead[0])
        return list(takewhile(lambda batch: _shapes(batch) == shapes, self.ahead))

    def _draw(self, count: int) -> None:
        try:
            if self.error is None:
                self.ahead += islice(self.batches, max(0, count - len(self.ahead)))
        except Exception as error:
            self.error = error
        if self.error is not None and not self.ahead:
            raise self.error


def window_size(batch: Any) -> int:
    """Return the number of batches like this one in a window: a power of two.

    It is below 2 if a batch is too large, or holds anything else than arrays of numbers.
    """
    leaves = [leaf for leaf in tree.flatten(batch) if leaf is not None]
    if not all(type(leaf) is np.ndarray and leaf.dtype.kind in "biuf" for leaf in leaves):
        return 0
    fitting = MOST_BYTES // max(1, sum(leaf.nbytes for leaf in leaves)) if leaves else 0
    return min(MOST_BATCHES, 2 ** fitting.bit_length() // 2)


def _shapes(batch: Any) -> Any:
    leaves = tree.flatten(batch)
    found = [(np.shape(leaf), getattr(leaf, "dtype", type(leaf))) for leaf in leaves]
    return found, mapped(lambda leaf: 0, batch)


def _window(batches: list[Any], size: int) -> Any:
    """Return batches as one block with room for `size` of them."""
    blocks = mapped(lambda leaf: _empty((size, *leaf.shape), leaf.dtype), batches[0])
    for i, batch in enumerate(batches):
        for block, leaf in zip(tree.flatten(blocks), tree.flatten(batch), strict=True):
            if leaf is not None:
                block[i] = leaf
    return blocks


def _empty(shape: tuple[int, ...], dtype: Any) -> Any:
    """Return an array with room. The part that is never written to costs nothing."""
    count = int(np.prod(shape)) * dtype.itemsize
    room = np.empty(count + _LINE, "uint8")
    start = -room.ctypes.data % _LINE
    return room[start : start + count].view(dtype).reshape(shape)

"""The position in the training data, saved and restored on resume.

The order of the data is never stored. The checkpoint stores the state of the random generators and
of the data set that the order depends on: when the iterator was made and when it was first read. On
resume, the same iterator is made again. The batches already seen are read and dropped.
"""

from collections.abc import Callable, Iterator
from types import GeneratorType
from typing import Any

import keras

from mlsystem import _keras
from mlsystem.data.data_state import DataState
from mlsystem.engine import engine, random_state


class Position:
    """The position of one call of `fit` in its data.

    Args:
        epoch: Keras' iterator over the batches of an epoch.
        data: the data passed to `fit`.
    """

    def __init__(self, epoch: Any, data: Any) -> None:
        self.epoch, self.state = epoch, DataState(data)
        self.is_ahead = reads_ahead(data)
        self.data_digest: dict[str, Any] | None = None
        self.total = 0  # number of batches, also of earlier calls
        self.batch = self.drawn = 0  # batches in this epoch, and from this iterator
        self.step = (0, 0)  # the current step: its end in the epoch, and its number of batches
        self.is_unread = False
        self.made: Any = None
        self.first: Any = None
        self.epochs: dict[str, Any] = {}  # Keras' number of the epoch at `made` and `first`
        self.iterator: Any = None
        self.begun: Any = None  # state of generators and data at the start of a resumed epoch
        self.back: dict[str, Any] | None = None
        self.when_back: Callable[[], None] = _nothing
        self.before_batch: Callable[[], None] = _nothing
        epoch.position = self

    # Called by the epoch iterator ------------------------------------------------------------

    def make(self) -> None:
        """Record the state before an iterator is made. On resume, restore the state first."""
        if self.back is not None:
            self.begun = self._now()
            self._restore(self.back["made"])
        self.made, self.epochs["made"] = self._now(), _keras.data_epoch(self.epoch.data_adapter)

    def follow(self, steps: Iterator[Any]) -> Iterator[Any]:
        """Yield the steps of an epoch, each a number of batches. On resume, yield only the rest."""
        self.batch = skipped = 0
        self._set_epoch(self.back, "made")  # before Keras starts to read
        for begin, end, iterator in steps:
            if iterator is not self.iterator:
                skipped = self._start(iterator)
            if begin < skipped:
                continue
            if begin == skipped > 0:
                self.when_back()
            elif begin:
                self.before_batch()
            self.step = end + 1, end - begin + 1 - self._missing()
            yield begin, end, iterator

    def _missing(self) -> int:
        """Return how many batches the last group lacks, if the number of batches is known."""
        known = self.epoch._num_batches
        return max(0, self.epoch._steps_seen - known) if known else 0

    def begin_batch(self) -> None:
        """Record the random state after the callbacks' hook, if no batch has been read yet.

        The hook may have drawn random numbers.
        """
        if self.is_unread:
            self.first = random_state.state()

    def end_batch(self) -> None:
        """Count a finished step. A step that finds the end of the data does not count."""
        self.is_unread = False
        self.batch, count = self.step
        missing = getattr(self.iterator, "missing", 0)  # if the data ended within a group
        self.batch, count = self.batch - missing, count - missing
        self.drawn, self.total = self.drawn + count, self.total + count

    def _start(self, iterator: Any) -> int:
        """Record the state at the first read of an iterator. On resume, read up to the stop."""
        self.iterator, back, self.back = iterator, self.back, None
        self._set_epoch(back, "first")
        self.epochs["first"] = _keras.data_epoch(self.epoch.data_adapter)
        if back is not None and back["drawn"] == 0:
            random_state.restore(self.begun["random"])
            self.state.catch_up(self.begun["data"])
        if back is None or back["drawn"] == 0:
            self.first, self.drawn = random_state.state(), 0
            self.is_unread = not _keras.reads_groups(self.epoch)
            return 0
        self.first, self.drawn, self.batch = back["first"], back["drawn"], back["batch"]
        random_state.restore(self.first)
        _skip(iterator, self.drawn)
        self._set_epoch(back, "now")
        self.epoch._steps_seen += self.drawn - self.batch
        now = back["now"] if self.batch else self.begun
        restore(now["random"], self.is_ahead)
        self.state.catch_up(now["data"])
        return self.batch

    def _set_epoch(self, back: Any, when: str) -> None:
        if back is not None:
            _keras.set_data_epoch(self.epoch.data_adapter, back.get("epochs", {}).get(when))

    def _now(self) -> dict[str, Any]:
        return {"random": random_state.state(), "data": self.state.read()}

    def _restore(self, state: Any) -> None:
        random_state.restore(state["random"])
        self.state.write(state["data"])

    # Saved and restored by a checkpoint ------------------------------------------------------

    def read(self, ended: bool) -> dict[str, Any]:
        """Return the position as numbers and arrays.

        At the end of an epoch, it is the position before the next epoch.
        """
        epochs = self.epochs | {"now": _keras.data_epoch(self.epoch.data_adapter)}
        state = {"total": self.total, "batches": self.epoch.num_batches, "now": self._now()}
        state["epochs"] = epochs
        if not ended:
            return state | self._inside() | {"batch": self.batch}
        # With `steps_per_epoch` the next epoch continues the same iterator if it has more batches.
        current = self.epoch._current_iterator if self.epoch.steps_per_epoch else None
        if current is self.iterator:
            return state | self._inside()
        epochs["first"] = epochs["now"]
        fresh = {"made": self.made, "first": state["now"]["random"], "drawn": 0, "batch": 0}
        return state if current is None else state | fresh

    def _inside(self) -> dict[str, Any]:
        return {"made": self.made, "first": self.first, "drawn": self.drawn, "batch": 0}

    def go_to(self, state: dict[str, Any]) -> None:
        """Start the next epoch at a saved position."""
        self.total = state["total"]
        self.back = state if "made" in state else None

    def begin_epoch(self, state: dict[str, Any]) -> None:
        """Restore all random state from the end of the last epoch."""
        self._restore(state["now"])
        self._set_epoch(state, "now")


def reads_ahead(data: Any) -> bool:
    """Return whether data are Python code that runs during training on earlier batches."""
    is_python = isinstance(data, (keras.utils.PyDataset, GeneratorType))
    return is_python and engine.reads_ahead()


def restore(state: dict[str, Any], is_ahead: bool) -> None:
    """Restore the generators, unless data may be drawing from them in advance."""
    if not is_ahead:
        random_state.restore(state)


def _skip(iterator: Any, batches: int) -> None:
    for i in range(batches):
        try:
            next(iterator)
        except StopIteration:
            raise ValueError(
                f"The data ended after {i} batches, and the checkpoint was written after "
                f"{batches}. Resume with the same data."
            ) from None


def _nothing() -> None:
    pass

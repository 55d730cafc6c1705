"""Where in its data a training run is: the iterator that is read, and how far.

The order of the data is never stored. What it is drawn from is: the state of the random generators
and of the data set when the iterator was made and when it was first read. To come back, the same
iterator is made again, and the batches that were seen are read and dropped.
"""

from collections.abc import Callable, Iterator
from types import GeneratorType
from typing import Any

import keras

from mlsystem import _keras
from mlsystem.data.data_state import DataState
from mlsystem.engine import engine, random_state


class Position:
    """The position of one call of `fit`.

    Args:
        epoch: Keras' iterator over the batches of an epoch.
        data: what was given to `fit`.
    """

    def __init__(self, epoch: Any, data: Any) -> None:
        self.epoch, self.state = epoch, DataState(data)
        self.is_ahead = reads_ahead(data)
        self.data_digest: dict[str, Any] | None = None
        self.total = 0  # batches, in earlier calls too
        self.batch = self.drawn = 0  # in this epoch, and of this iterator
        self.step = (0, 0)  # where in the epoch the step at hand ends, and of how many batches
        self.is_unread = False
        self.made: Any = None
        self.first: Any = None
        self.epochs: dict[str, Any] = {}  # Keras' number of the epoch when they were
        self.iterator: Any = None
        self.begun: Any = None  # the generators and the data when a resumed epoch was
        self.back: dict[str, Any] | None = None
        self.when_back: Callable[[], None] = _nothing
        self.before_batch: Callable[[], None] = _nothing
        epoch.position = self

    # What the epoch iterator calls -----------------------------------------------------------

    def make(self) -> None:
        """An iterator is about to be made."""
        if self.back is not None:
            self.begun = self._now()
            self._restore(self.back["made"])
        self.made, self.epochs["made"] = self._now(), _keras.data_epoch(self.epoch.data_adapter)

    def follow(self, steps: Iterator[Any]) -> Iterator[Any]:
        """The steps of an epoch, each a number of batches; of a resumed one those that remain."""
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
        """How many batches of a group the data are short of, where their number is known."""
        known = self.epoch._num_batches
        return max(0, self.epoch._steps_seen - known) if known else 0

    def begin_batch(self) -> None:
        """The callbacks have heard of a batch; they may have drawn before any is read."""
        if self.is_unread:
            self.first = random_state.state()

    def end_batch(self) -> None:
        """A step was taken; that which finds the data at their end is not."""
        self.is_unread = False
        self.batch, count = self.step
        self.drawn, self.total = self.drawn + count, self.total + count

    def _start(self, iterator: Any) -> int:
        """Notes the state in which an iterator is first read; reads on to where a run stopped."""
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

    # What a checkpoint keeps -----------------------------------------------------------------

    def read(self, ended: bool) -> dict[str, Any]:
        """The position as numbers and arrays; at the end of an epoch, that before the next one."""
        epochs = self.epochs | {"now": _keras.data_epoch(self.epoch.data_adapter)}
        state = {"total": self.total, "batches": self.epoch.num_batches, "now": self._now()}
        state["epochs"] = epochs
        if not ended:
            return state | self._inside() | {"batch": self.batch}
        # With `steps_per_epoch` the next epoch reads on in the same iterator, if that has more.
        current = self.epoch._current_iterator if self.epoch.steps_per_epoch else None
        if current is self.iterator:
            return state | self._inside()
        epochs["first"] = epochs["now"]
        fresh = {"made": self.made, "first": state["now"]["random"], "drawn": 0, "batch": 0}
        return state if current is None else state | fresh

    def _inside(self) -> dict[str, Any]:
        return {"made": self.made, "first": self.first, "drawn": self.drawn, "batch": 0}

    def go_to(self, state: dict[str, Any]) -> None:
        """Has the next epoch begin where the position was read."""
        self.total = state["total"]
        self.back = state if "made" in state else None

    def begin_epoch(self, state: dict[str, Any]) -> None:
        """Puts all that is random where it was at the end of the last epoch."""
        self._restore(state["now"])
        self._set_epoch(state, "now")


def reads_ahead(data: Any) -> bool:
    """Whether data are Python code that runs beside the training on earlier batches."""
    is_python = isinstance(data, (keras.utils.PyDataset, GeneratorType))
    return is_python and engine.reads_ahead()


def restore(state: dict[str, Any], is_ahead: bool) -> None:
    """Sets the generators as they were, unless data may be drawing ahead from them."""
    if not is_ahead:
        random_state.restore(state)


def _skip(iterator: Any, batches: int) -> None:
    for i in range(batches):
        try:
            next(iterator)
        except StopIteration:
            raise ValueError(
                f"The data ended after {i} batches, and the checkpoint was written after "
                f"{batches}. Go on with the same data."
            ) from None


def _nothing() -> None:
    pass

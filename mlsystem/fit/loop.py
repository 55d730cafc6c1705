"""Run many steps as one program, a loop on the device.

`fit(on_device=...)` does so on arrays, and `compile(steps_per_execution="auto")` on any data. The
steps of a group end before a callback has to act. Groups change no bit of the training.
"""

from collections.abc import Iterator
from typing import Any

import keras

from mlsystem import _keras
from mlsystem.callbacks.batch_callback import BatchCallback, has
from mlsystem.callbacks.checkpoint import Checkpoint
from mlsystem.callbacks.for_model import For
from mlsystem.callbacks.measured_steps import MeasuredSteps
from mlsystem.callbacks.watched_step import unwatched
from mlsystem.data.indexed_batches import MOST_BATCHES, IndexedBatches, window_size
from mlsystem.data.stacked_batches import StackedBatches
from mlsystem.engine import engine
from mlsystem.fit.compact_bar import CompactBar
from mlsystem.step.train_function import SystemTrainFunction, TrainFunction

_BARS = (keras.callbacks.ProgbarLogger, CompactBar)
_HOOKS = ("on_train_batch_begin", "on_train_batch_end", "on_batch_begin", "on_batch_end")
_OFTEN_IDLE = (keras.callbacks.ModelCheckpoint, keras.callbacks.BackupAndRestore)

Batches = Any  # `IndexedBatches`, `StackedBatches`, or an iterator of the backend


class Loop:
    """The groups of steps of one `fit`, and the batches for them.

    Args:
        call: the call of `fit`.
        epoch: Keras' iterator over the batches of an epoch.
        has_arrays: whether the batches are taken from arrays by index.
    """

    def __init__(self, call: Any, epoch: Any, has_arrays: bool) -> None:
        self.learner, self.callbacks, self.epoch = call.learner, call.callbacks, epoch
        self.insists = call.arguments.on_device is True
        self.has_arrays = has_arrays
        self.latest: Batches | None = None

    def batches(self) -> Batches:
        """Return the batches of the next epoch."""
        made = self._of_arrays() if self.has_arrays else self._of_data()
        if self.latest is not None:
            made.most = self.latest.most
        self.latest = made
        return made

    def _of_arrays(self) -> Batches:
        arrays, rows, size = _keras.indexed(self.epoch.data_adapter)
        made = IndexedBatches(arrays, rows, size, engine.gatherer(arrays))
        made.insists = self.insists
        return made

    def _of_data(self) -> Batches:
        epoch = self.epoch
        if (own := engine.grouped(getattr(epoch, "_distributed_dataset", None))) is not None:
            return own
        if epoch.position is not None:
            epoch.position.is_ahead = False  # Keras would read one batch ahead on an accelerator
        return StackedBatches(iter(epoch.data_adapter.get_jax_iterator()))

    def grouped(self, steps: Iterator[Any]) -> Iterator[Any]:
        """Yield the steps of an epoch in groups: the first batch, the last one, the iterator."""
        back = self.epoch.position and self.epoch.position.back
        for begin, end, batches in steps:
            # A resumed epoch is read up to its first step after that step is yielded.
            is_resumed = back is not None and begin <= back.get("batch", 0)
            batches.group = 1 if is_resumed else self._count(begin, batches)
            for _ in range(batches.group - 1):
                _, end, _ = next(steps)
            yield begin, end, batches
            # Here, because no step may be left in the epoch that would meet it.
            if batches.error is not None:
                raise batches.error
            if batches.missing and end + 1 == self.epoch.num_batches:
                with self.epoch.catch_stop_iteration():  # Keras warns, and starts the data anew
                    raise StopIteration

    def _count(self, begin: int, batches: Batches) -> int:
        """Return the number of batches of the next group."""
        most = min(batches.most, batches.ready(), self._left(begin))
        if most > 1:
            most = min(most, *(heard for c in self.callbacks.callbacks if (heard := _most(c))))
        return _equal_steps(self.learner, most) if most > 1 else 1

    def _left(self, begin: int) -> int:
        """Return the number of batches up to the end of the epoch or the data. 1 if unknown."""
        epoch = self.epoch
        if epoch.num_batches is None:
            return 1
        left: int = epoch.num_batches - begin
        if not epoch.steps_per_epoch and epoch.data_adapter.num_batches is None:
            return max(1, left - 1)  # Keras has counted the step that found the end of the data
        passed = epoch._steps_seen - 1  # of this pass through the data, which may be shorter
        return min(left, epoch._num_batches - passed) if epoch._num_batches else left


def _most(callback: Any) -> int:
    """Return how many batches may run before a callback must act."""
    if _listens(callback):
        return 1
    acts = isinstance(callback, (BatchCallback, Checkpoint))
    return (callback.most() if acts else None) or MOST_BATCHES


def _listens(callback: Any) -> bool:
    """Return whether a callback must be told of each batch."""
    if isinstance(callback, For):
        return _listens(callback.callback)
    is_idle = type(callback) in _OFTEN_IDLE and getattr(callback, "save_freq", 1) == "epoch"
    if type(callback) in _BARS or is_idle:
        return False
    return isinstance(callback, MeasuredSteps) or any(has(callback, hook) for hook in _HOOKS)


def _equal_steps(learner: Any, most: int) -> int:
    """Return how many of the next steps are equal, and end before a check of their gradients."""
    function, nonfinite = learner.model.train_function, getattr(learner.model, "nonfinite", "keep")
    function = unwatched(function)
    if type(function) not in (TrainFunction, SystemTrainFunction) or nonfinite == "raise":
        return 1
    batch = learner.compiled.batches
    if nonfinite == "skip":  # looked at after a number of batches that is a power of two
        most = min(most, 2 ** batch.bit_length() - batch)
    if learner.setup is None or not learner.setup.turns or function.variants():
        return most
    due = function.due(batch)
    return next((i for i in range(1, most) if function.due(batch + i) != due), most)


def made(call: Any, epoch: Any) -> Loop | None:
    """Return the loop of a `fit`. None if each of its steps is a program of its own."""
    if call.arguments is None or _obstacle(call):
        return None
    model = call.learner.model
    if call.arguments.on_device and not (engine.no_loop(model) or _not_arrays(epoch)):
        return Loop(call, epoch, has_arrays=True)
    is_asked = call.learner.given.groups_steps and not engine.no_groups(model)
    return Loop(call, epoch, has_arrays=False) if is_asked else None


def _not_arrays(epoch: Any) -> str:
    is_indexed = _keras.is_indexed(epoch.data_adapter)
    return "" if is_indexed else "its data are no arrays, or have shuffle='batch'"


def _obstacle(call: Any) -> str:
    """Say why a `fit` cannot run steps in groups, on any data. Empty if it can."""
    if engine.replicas.count > 1:
        return "several processes train together"
    if call.learner.model.steps_per_execution > 1:
        return "compile got steps_per_execution above 1"
    if call.callbacks is None:
        return "its callbacks are a CallbackList"
    return ""


def check(call: Any, epoch: Any) -> None:
    """Raise an error if `on_device` is True and steps must run one at a time."""
    if call.arguments is None or call.arguments.on_device is not True:
        return
    why = engine.no_loop(call.learner.model) or _obstacle(call) or _not_arrays(epoch)
    why = why or _single(call, epoch)
    if why:
        raise ValueError(
            f"fit got on_device=True, and {why}. So its steps run one at a time. Leave on_device "
            "at 'auto'."
        )


def _single(call: Any, epoch: Any) -> str:
    """Say why the steps of a `fit` that could run in a loop form no groups."""
    listening = [type(c).__name__ for c in call.callbacks.callbacks if _most(c) == 1]
    if listening:
        return f"{listening[0]} is told of each batch"
    if getattr(call.learner.model, "nonfinite", "keep") == "raise":
        return "nonfinite='raise' looks at each batch"
    arrays, _, size = _keras.indexed(epoch.data_adapter)
    return "" if window_size(arrays, size) > 1 else "two batches do not fit one block of 16 MB"

"""`max_time`: stop `fit` after a time limit."""

import datetime
import time
from typing import Any

from mlsystem.callbacks.batch_callback import BatchCallback
from mlsystem.callbacks.checkpoint import Checkpoint
from mlsystem.engine.distribution import first_process


class TimeLimit(BatchCallback):
    """A callback that stops training after the batch at which the time limit is reached.

    It is the last callback of a `fit`. A `Checkpoint` must know if an epoch ended or stopped early.
    Training resumes inside an epoch that stopped early.

    Args:
        seconds: the time limit from now on.
    """

    def __init__(self, seconds: float) -> None:
        super().__init__()
        self._end = time.monotonic() + seconds

    def follow(self, callbacks: Any, epoch: Any) -> None:
        """Store the iterator and the Checkpoints. See `BatchCallback`."""
        self._epoch = epoch
        self._checkpoints = [c for c in callbacks.callbacks if isinstance(c, Checkpoint)]

    def most(self) -> None:
        """Return None: the time is looked at after each group of batches."""

    def after_batches(self, first: int, last: int) -> None:
        """Stop inside an epoch. The end of an epoch has its own hook. See `BatchCallback`."""
        batches = self._epoch.num_batches
        if self._is_over() and (batches is None or last + 1 < batches):
            for checkpoint in self._checkpoints:
                checkpoint.leave_off()
            self._stop(f"after batch {last + 1} of the epoch")

    def on_epoch_end(self, epoch: int, logs: Any = None) -> None:
        """Stop at the end of an epoch, after all other callbacks have run this hook."""
        ends = self.model.stop_training or epoch + 1 == self.params["epochs"]
        if self._is_over() and not ends:
            for checkpoint in self._checkpoints:
                checkpoint.write_end()
            self._stop(f"after epoch {epoch + 1}")

    def _is_over(self) -> bool:
        return bool(first_process.decides(time.monotonic() >= self._end))

    def _stop(self, place: str) -> None:
        self.model.stop_training = True
        if self.params["verbose"] != 0:
            print(f"\nThe time is over: training ends {place}.")


def seconds(given: Any) -> float:
    """Return a number of seconds or a `datetime.timedelta` as seconds."""
    found = given.total_seconds() if isinstance(given, datetime.timedelta) else given
    if isinstance(found, bool) or not isinstance(found, (int, float)) or not found > 0:
        raise ValueError(
            f"fit got max_time={given!r}; give seconds above 0, or a datetime.timedelta."
        )
    return float(found)

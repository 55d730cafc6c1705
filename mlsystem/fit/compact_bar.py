"""`CompactBar`: Keras' progress bar, short enough for one line if a system has many logs."""

from typing import Any

import keras

from mlsystem import _learner
from mlsystem.callbacks import compact_logs
from mlsystem.fit.bar_line import BarLine

MOST = 6  # logs that Keras' own bar shows


class CompactBar(keras.callbacks.ProgbarLogger):
    """The progress bar of Keras. A system with more than six logs gets one line of 100 columns.

    The line shows `loss` and one number for each loss. `history` has all logs.

    Args:
        sets: number of validation sets in this `fit`.
    """

    def __init__(self, sets: int = 0) -> None:
        super().__init__()
        self.sets = sets
        self.line: BarLine | None = None  # of the epoch, in the compact form
        self.is_compact = self.is_in_fit = False

    def on_train_begin(self, logs: Any = None) -> None:
        """Choose the form of the bar. See Keras."""
        super().on_train_begin(logs)
        self.is_in_fit, self.is_compact = True, self._logs_in_fit() > MOST

    def on_epoch_begin(self, epoch: int, logs: Any = None) -> None:
        """Start the line of an epoch. See Keras."""
        if self.is_compact:
            front = f"Epoch {epoch + 1}/{self.epochs}  " if self.epochs > 1 else ""
            self.line = BarLine(self.target, self.verbose, front)
        else:
            super().on_epoch_begin(epoch, logs)

    def on_train_batch_end(self, batch: int, logs: Any = None) -> None:
        """Show the logs. See Keras."""
        if self.is_compact:
            self._draw(batch, logs)
        else:
            super().on_train_batch_end(batch, logs)

    def on_epoch_end(self, epoch: int, logs: Any = None) -> None:
        """End the line of an epoch. See Keras."""
        if self.is_compact:
            self._end(logs)
        else:
            super().on_epoch_end(epoch, logs)

    def on_test_begin(self, logs: Any = None) -> None:
        """Start the line of an evaluation outside of `fit`. See Keras."""
        if self.is_in_fit:
            return
        self.is_compact = _logs_of_a_batch(self.model) > MOST
        if self.is_compact:
            self.line = BarLine(self.target, self.verbose)
        else:
            super().on_test_begin(logs)

    def on_test_batch_end(self, batch: int, logs: Any = None) -> None:
        """Show the logs of an evaluation outside of `fit`. See Keras."""
        if self.is_compact and not self.is_in_fit:
            self._draw(batch, logs)
        elif not self.is_in_fit:
            super().on_test_batch_end(batch, logs)

    def on_test_end(self, logs: Any = None) -> None:
        """End the line of an evaluation outside of `fit`. See Keras."""
        if self.is_compact and not self.is_in_fit:
            self._end(logs)
        elif not self.is_in_fit:
            super().on_test_end(logs)

    def _logs_in_fit(self) -> int:
        """Return the number of logs at the end of an epoch: validation and learning rates too."""
        of_a_batch = _logs_of_a_batch(self.model)
        return of_a_batch and of_a_batch * (1 + self.sets) + len(self.model.optimizers)

    def _draw(self, batch: int, logs: Any) -> None:
        if self.line is not None:
            self.line.draw(batch + 1, self._text(logs))

    def _end(self, logs: Any) -> None:
        if self.line is not None and self.verbose:
            self.line.end(self._text(logs))
            self.target = self.line.target  # data of unknown length have been read once

    def _text(self, logs: Any) -> Any:
        # Most batches are not drawn: what a line needs is looked up when it is.
        learner = self.model._mlsystem
        return lambda width: compact_logs.line(logs or {}, compact_logs.loss_logs(learner), width)


def _logs_of_a_batch(model: Any) -> int:
    """Return the number of logs of a batch. 0 for a model alone, which keeps Keras' bar."""
    if not _learner.is_system(model) or not keras.config.is_interactive_logging_enabled():
        return 0
    learner = model._mlsystem
    return len({*learner.logs.trackers, *learner.metric_names()})

"""`validation_every`: validate every N batches instead of after each epoch."""

import functools
import warnings
from collections.abc import Callable
from typing import Any

import numpy as np

from mlsystem import _keras
from mlsystem.callbacks.batch_callback import BatchCallback
from mlsystem.callbacks.undisturbed import undisturbed
from mlsystem.fit.validation import Validation


class ValidateEvery(BatchCallback):
    """A callback that validates every N batches, counted over the whole `fit`.

    Args:
        every: number of batches between validations.
        validation: the validation sets.
        data: the training data.
    """

    def __init__(self, every: int, validation: Validation, data: Any) -> None:
        super().__init__()
        self.every, self.validation, self.data = every, validation, data
        validation.inside = self
        # A checkpoint saves these two attributes.
        self.total = 0
        self.latest: dict[str, Any] = {}

    def follow(self, callbacks: Any, epoch: Any) -> None:
        """Prepare the evaluation. See `BatchCallback`."""
        # No attribute holds the callback list, because the list is a callback that holds this one.
        self._wait = functools.partial(_keras.wait_for, callbacks)
        self._evaluate: Callable[[], dict[str, Any]] = functools.partial(
            self.validation.evaluate, self.model, callbacks
        )

    def on_train_begin(self, logs: Any = None) -> None:
        """Clear the recorded validations. `fit` calls all `on_` methods."""
        self.model.history.validations = {}

    def on_epoch_begin(self, epoch: int, logs: Any = None) -> None:
        """Drop the logs of the epoch before."""
        self.latest = {}

    def most(self) -> int:
        """Return the number of batches up to the next validation."""
        return self.every - self.total % self.every

    def after_batches(self, first: int, last: int) -> None:
        """Validate if it is due. See `BatchCallback`."""
        before, self.total = self.total, self.total + last + 1 - first
        if self.total // self.every > before // self.every:
            self._wait()
            with undisturbed(self.model, self.data):
                self.latest = self._evaluate()
            self._record({f"val_{name}": value for name, value in self.latest.items()})

    def on_train_end(self, logs: Any = None) -> None:
        """Warn if training had too few batches to validate."""
        if not self.total // self.every:
            warnings.warn(
                f"fit got validation_every={self.every}, and trained on {self.total} batches: it "
                "never validated.",
                stacklevel=2,
            )

    def _record(self, logs: dict[str, Any]) -> None:
        for name, value in {"batch": self.total, **logs}.items():
            self.model.history.validations.setdefault(name, []).append(value)
        if self.params["verbose"] != 0:
            # As Keras does, the mean of a metric with several numbers.
            shown = " - ".join(f"{name}: {np.mean(value):.4f}" for name, value in logs.items())
            print(f"\nAfter batch {self.total}: {shown}")

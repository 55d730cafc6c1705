"""`BatchCallback`: base class of callbacks that get batch numbers and no logs."""

from typing import Any

import keras


class BatchCallback(keras.callbacks.Callback):
    """A callback that `fit` tells of batches by their numbers alone.

    Keras hands the logs of a batch to whoever listens, and waits for the step to have them.
    """

    def follow(self, callbacks: Any, epoch: Any) -> None:
        """Called before training, with the list of all callbacks and Keras' iterator."""

    def before_batches(self, first: int) -> None:
        """Called before a step, with the number of its first batch in the epoch."""

    def after_batches(self, first: int, last: int) -> None:
        """Called after a step, once the other callbacks have been told of it."""

    def close(self) -> None:
        """Called when `fit` is left, by an error too."""


NAMES = [name for name in dir(keras.callbacks.Callback) if name.startswith("on_")]


def has(callback: Any, hook: str) -> bool:
    """Whether a callback does anything at a hook: by a method or a function of its own."""
    own = getattr(getattr(callback, hook), "__func__", None)
    return own is not getattr(keras.callbacks.Callback, hook)

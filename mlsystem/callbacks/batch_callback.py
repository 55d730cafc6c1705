"""`BatchCallback`: base class of callbacks that get batch numbers and no logs."""

from typing import Any

import keras

from mlsystem import _learner


class BatchCallback(keras.callbacks.Callback):
    """A callback whose batch hooks get batch numbers and no logs.

    Keras passes the logs of each batch to its batch hooks. It waits for the step to compute them.
    """

    def follow(self, callbacks: Any, epoch: Any) -> None:
        """Prepare for training, given the list of all callbacks and Keras' iterator."""

    def before_batches(self, first: int) -> None:
        """Act before a step, given the number of its first batch in the epoch."""

    def after_batches(self, first: int, last: int) -> None:
        """Act after a step, once the other callbacks have run their hooks."""

    def most(self) -> int | None:
        """Return how many batches may run before the callback acts. None for any number."""
        return 1

    def close(self) -> None:
        """Clean up when `fit` ends, also after an error."""


NAMES = [name for name in dir(keras.callbacks.Callback) if name.startswith("on_")]


def has(callback: Any, hook: str) -> bool:
    """Return whether a callback overrides a hook, by a method or a function of its own."""
    own = getattr(getattr(callback, hook), "__func__", None)
    return own is not getattr(keras.callbacks.Callback, hook)


def check_whole(callback: Any, model: Any) -> None:
    """Raise an error if a callback is given to something else than an MLModel or MLSystem."""
    if not isinstance(model, keras.Model) or _learner.of(model) is None:
        raise ValueError(
            f"{type(callback).__name__} is for the `fit` of a whole MLModel or MLSystem. Give it "
            "there, without For."
        )

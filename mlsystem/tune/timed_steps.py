"""`TimedSteps`: the callback that times training steps, unless memory is too small for them."""

import time
from typing import Any

import keras
from keras import ops

from mlsystem.callbacks.watched_step import WatchedStep
from mlsystem.diagnostics.wording import size
from mlsystem.engine import engine


class TooLarge(Exception):
    """A step needs more memory than there is."""


class TimedSteps(keras.callbacks.Callback):
    """Times the steps of a `fit`, except the first one, which compiles.

    Args:
        batch: the batch of each step, as arrays.
        room: the bytes for a step. None if they are not known.
    """

    def __init__(self, batch: Any, room: int | None) -> None:
        super().__init__()
        self.batch, self.room = batch, room
        self.seconds: list[float] = []
        self.is_first = True

    def on_train_begin(self, logs: Any = None) -> None:
        """Check the memory that a step needs, and watch the steps. See Keras."""
        need = engine.step_memory(self.model, self.batch) if self.room else None
        if need is not None and self.room is not None and need > self.room:
            raise TooLarge(f"a step needs {size(need)}, and there are {size(self.room)}.")
        self.model.train_function = WatchedStep(self.model.train_function, self)

    def step(self, function: Any, *given: Any) -> Any:
        """Run a step, or several as one, and wait for its numbers."""
        start = time.perf_counter()
        result = function(*given)
        for value in self.model.get_metrics_result().values():
            ops.convert_to_numpy(value)
        for weight in self.model.trainable_weights[:1]:
            ops.convert_to_numpy(weight)
        if not self.is_first:
            self.seconds.append(time.perf_counter() - start)
        self.is_first = False
        return result

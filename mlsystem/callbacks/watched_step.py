"""`WatchedStep`: a training function whose steps a callback measures."""

from collections.abc import Callable, Sequence
from typing import Any

import keras
from keras import ops

from mlsystem.diagnostics.gradient_measurement import norm
from mlsystem.engine import engine


class WatchedStep:
    """A training function that a callback watches.

    Args:
        function: the function that Keras' `fit` calls.
        watcher: a callback with a method `step(function, *given)`, which runs the function.
    """

    def __init__(self, function: Any, watcher: Any) -> None:
        self.unwatched = function
        self.watcher = watcher

    def __call__(self, *given: Any) -> Any:
        """Run the steps."""
        return self.watcher.step(self.unwatched, *given)


def unwatched(function: Any) -> Any:
    """Return a training function without the callbacks that watch it."""
    return unwatched(function.unwatched) if isinstance(function, WatchedStep) else function


def measured_step(
    model: Any, measure: Callable[[Any], Any], function: Any, given: Any
) -> tuple[Any, Any, dict[str, float]]:
    """Run a training step, or several as one, and measure its first batch.

    Returns:
        The logs of the step, what `measure` returns for the batch, and the update ratio of each
        model. The measurement is None if the data has ended.
    """
    batch, given = engine.peek(model, *given)
    if batch is None:
        return function(*given), None, {}
    models = model._mlsystem.models().items()
    weights = {name: member.trainable_weights for name, member in models}
    found, before = measure(batch), {name: copies(mine) for name, mine in weights.items()}
    logs = function(*given)
    return logs, found, {n: update_ratio(before[n], copies(weights[n])) for n in weights}


def copies(weights: Sequence[Any]) -> list[Any]:
    """Return copies of the values of some weights."""
    return [ops.copy(weight.value) for weight in weights]


def update_ratio(before: list[Any], after: list[Any]) -> float:
    """Return the norm of the change of some weights, divided by the norm of the weights."""
    moved = [new - old for old, new in zip(before, after, strict=True)]
    numbers = [float(ops.convert_to_numpy(norm(tensors))) for tensors in (moved, before)]
    return numbers[0] / max(numbers[1], keras.config.epsilon())

"""`WatchedStep`: a training function whose steps a callback measures."""

from collections.abc import Callable
from typing import Any

import keras
from keras import ops

from mlsystem.diagnostics.gradient_measurement import norm
from mlsystem.engine import engine

Weights = dict[str, list[Any]]


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
    found, before = measure(batch), _weights(model)
    logs = function(*given)
    after = _weights(model)
    return logs, found, {m: _update_ratio(old, after[m]) for m, old in before.items()}


def _weights(model: Any) -> Weights:
    """Return copies of the trainable weights of each model."""
    models = model._mlsystem.models().items()
    return {name: [ops.copy(w.value) for w in m.trainable_weights] for name, m in models}


def _update_ratio(before: list[Any], after: list[Any]) -> float:
    """Return the norm of the change of some weights, divided by the norm of the weights."""
    moved = [new - old for old, new in zip(before, after, strict=True)]
    numbers = [float(ops.convert_to_numpy(norm(tensors))) for tensors in (moved, before)]
    return numbers[0] / max(numbers[1], keras.config.epsilon())

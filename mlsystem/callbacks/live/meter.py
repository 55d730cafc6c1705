"""`Meter`: measures the gradient and the update of each model on one batch."""

import time
from typing import Any

from mlsystem.callbacks.watched_step import WatchedStep, update_ratio, weights
from mlsystem.diagnostics.gradient_measurement import FollowedNorms
from mlsystem.engine import engine


class Meter:
    """Measures a batch when it is asked to, without an effect on training.

    Args:
        model: the model that is trained. Its training function is watched from now on.
    """

    def __init__(self, model: Any) -> None:
        self.model = model
        self.norms = FollowedNorms(model._mlsystem)
        self.is_due = False
        self.seconds = 0.0  # that the last measurement took
        model.train_function = WatchedStep(model.train_function, self)
        self.found: dict[str, float] = {}

    def step(self, function: Any, *given: Any) -> Any:
        """Run a training step, or several as one, and measure the first batch if it is due."""
        if not self.is_due:
            return function(*given)
        self.is_due, start = False, time.perf_counter()
        batch, given = engine.peek(self.model, *given)
        if batch is None:  # the data has ended
            return function(*given)
        norms, before = self.norms(batch), weights(self.model)
        self.seconds = time.perf_counter() - start
        result = function(*given)
        start = time.perf_counter()
        after = weights(self.model)
        self.found = {f"{name}_gradient_norm": norm for name, norm in norms.items()}
        self.found |= {f"{m}_update_ratio": update_ratio(w, after[m]) for m, w in before.items()}
        self.seconds += time.perf_counter() - start
        return result

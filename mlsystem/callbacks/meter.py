"""`Meter`: measures the gradient and the update of each model on one batch."""

import time
from typing import Any

from mlsystem.callbacks.watched_step import WatchedStep, measured_step
from mlsystem.diagnostics.gradient_measurement import FollowedNorms


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
        trained = 0.0

        def timed(*given: Any) -> Any:
            nonlocal trained
            begun = time.perf_counter()
            result = function(*given)
            trained = time.perf_counter() - begun
            return result

        result, norms, ratios = measured_step(self.model, self.norms, timed, given)
        if norms is not None:
            self.seconds = time.perf_counter() - start - trained
            self.found = {f"{name}_gradient_norm": norm for name, norm in norms.items()}
            self.found |= {f"{name}_update_ratio": ratio for name, ratio in ratios.items()}
        return result

"""`MeasuredSteps`: base class of callbacks that measure gradients and updates every N batches."""

from dataclasses import dataclass, field
from typing import Any

import keras

from mlsystem._checks import is_count
from mlsystem.callbacks.batch_callback import check_whole
from mlsystem.callbacks.watched_step import WatchedStep, measured_step
from mlsystem.diagnostics.gradient_measurement import Influence, Norms


@dataclass(frozen=True)
class Measured:
    """The gradient norms of a batch by loss and model, and the update ratio by model."""

    norms: Norms = field(default_factory=dict)
    ratios: dict[str, float] = field(default_factory=dict)

    def logs(self) -> dict[str, float]:
        """Return the numbers by their names in the logs."""
        found = {f"{model}_update_ratio": ratio for model, ratio in self.ratios.items()}
        for loss, row in self.norms.items():
            found |= {f"{model}_gradient_norm_{loss}": n or 0.0 for model, n in row.items()}
        return found


class MeasuredSteps(keras.callbacks.Callback):
    """A callback that measures the first batch of each epoch, and then every N batches.

    It changes no bit of the training. With `steps_per_execution`, it measures the first batch of an
    execution, and the update ratio covers all steps of the execution.

    Args:
        every: number of batches between measurements.
    """

    influence: Influence
    latest = Measured()

    def __init__(self, every: int) -> None:
        super().__init__()
        if not is_count(every):
            what = type(self).__name__
            raise ValueError(f"{what} got every={every!r}; give a number of batches from 1.")
        self.every = every
        self.batches = 0

    def measured(self, norms: Norms, ratios: dict[str, float]) -> None:
        """Take the gradient norms of a batch by loss and model, and the update ratio by model."""
        raise NotImplementedError

    def set_model(self, model: Any) -> None:
        """Check that the model is an MLModel or MLSystem, and store it. Keras calls this."""
        check_whole(self, model)
        super().set_model(model)

    def on_train_begin(self, logs: Any = None) -> None:
        """Watch the training steps of this `fit` from now on."""
        self.latest = Measured()
        self.influence = Influence(self.model._mlsystem)
        self.model.train_function = WatchedStep(self.model.train_function, self)

    def on_epoch_begin(self, epoch: int, logs: Any = None) -> None:
        """Start to count the batches. See Keras."""
        self.batches = 0

    def step(self, function: Any, *given: Any) -> Any:
        """Run a training step, or several as one, and measure a batch if it is due."""
        steps = self.model.steps_per_execution
        due = -self.batches % self.every < steps
        self.batches += steps
        if not due:
            return function(*given)
        result, norms, ratios = measured_step(self.model, self.influence, function, given)
        if norms is not None:
            self.latest = Measured(norms, ratios)  # an object, which a checkpoint does not hold
            self.measured(norms, ratios)
        return result

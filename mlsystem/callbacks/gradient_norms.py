"""`GradientNorms`: log gradient norms by loss and model during training."""

from typing import Any

from mlsystem.callbacks.measured_steps import Measured, MeasuredSteps
from mlsystem.diagnostics.gradient_measurement import Norms


class GradientNorms(MeasuredSteps):
    """A callback that logs gradient norms and the size of updates every N batches.

    Use it to see which loss dominates a model, and whether a learning rate is too high or too low.
    Each epoch logs these values, as means over the measured batches:

    - `MODEL_gradient_norm_LOSS`: the norm of the gradient of each loss in each model, before the
      weights of `routing` and others. It includes losses that the model does not follow.
    - `MODEL_update_ratio`: the norm of the change of a model's weights in a step, divided by the
      norm of the weights. About 0.001 is usual.

    ```python
    gan.fit(images, epochs=10, callbacks=[ml.callbacks.GradientNorms(every=100)])
    ```

    Training with and without this callback is the same, bit for bit. A measured batch costs one
    extra forward pass, and one backward pass per loss. If `forward` takes `phase`, each model is
    measured in its first phase, at that cost per phase. Other batches cost nothing. With
    `steps_per_execution`, the callback measures the first batch of an execution. The ratio then
    covers all steps of the execution.

    Args:
        every: number of batches between measurements. Each epoch measures its first batch. Give an
            odd number if a model is updated on every second batch, or its updates are never seen.

    Raises:
        ValueError: if `every` is not a number of batches from 1. Before training, if one of these
            names is already the name of another log.
    """

    def __init__(self, every: int = 100) -> None:
        super().__init__(every)
        self.found: dict[str, list[float]] = {}

    def on_train_begin(self, logs: Any = None) -> None:
        """Reserve the names of the logs, and watch the training steps of this `fit`."""
        learner = self.model._mlsystem
        for name, what in self._names().items():
            learner.logs.claim(name, what)
        learner.logs.check(learner.metric_names())
        super().on_train_begin(logs)

    def _names(self) -> dict[str, str]:
        learner = self.model._mlsystem
        losses, models = learner.known.names, learner.known_models()
        names = {f"{m}_update_ratio": f"the update ratio of '{m}'" for m in models}
        return names | {
            f"{m}_gradient_norm_{loss}": f"the norm of the gradient of '{loss}' in '{m}'"
            for m in models
            for loss in losses
        }

    def on_epoch_begin(self, epoch: int, logs: Any = None) -> None:
        """Reset the means. See Keras."""
        super().on_epoch_begin(epoch, logs)
        self.found = {}

    def on_epoch_end(self, epoch: int, logs: Any = None) -> None:
        """Add the means to the logs. `fit` calls this callback before all others."""
        if logs is not None:
            logs |= {name: sum(values) / len(values) for name, values in self.found.items()}

    def measured(self, norms: Norms, ratios: dict[str, float]) -> None:
        """Add the measurement of a batch to those of the epoch. See `MeasuredSteps`."""
        for name, value in Measured(norms, ratios).logs().items():
            self.found.setdefault(name, []).append(value)

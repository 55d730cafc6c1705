"""`GradientNorms`: log gradient norms by loss and model during training."""

from typing import Any

import keras

from mlsystem import _learner
from mlsystem._checks import is_count
from mlsystem.callbacks.watched_step import WatchedStep, update_ratio, weights
from mlsystem.diagnostics.gradient_measurement import Influence
from mlsystem.engine import engine


class GradientNorms(keras.callbacks.Callback):
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
    extra forward pass, and one backward pass per loss. Other batches cost nothing. With
    `steps_per_execution`, the callback measures the first batch of an execution. The ratio then
    covers all steps of the execution.

    Args:
        every: number of batches between measurements. Each epoch measures its first batch.

    Raises:
        ValueError: if `every` is not a number of batches from 1. Before training, if one of these
            names is already the name of another log.
    """

    def __init__(self, every: int = 100) -> None:
        super().__init__()
        if not is_count(every):
            raise ValueError(f"GradientNorms got every={every!r}; give a number of batches from 1.")
        self.every = every
        self.batches = 0
        self.looks = 0
        self.sums: dict[str, float] = {}

    def set_model(self, model: Any) -> None:
        """Check that the model is an MLModel or MLSystem, and store it. Keras calls this."""
        if not isinstance(model, keras.Model) or _learner.of(model) is None:
            raise ValueError(
                "GradientNorms is for the `fit` of a whole MLModel or MLSystem. Give it there, "
                "without For."
            )
        super().set_model(model)

    def on_train_begin(self, logs: Any = None) -> None:
        """Watch the training steps of this `fit` from now on."""
        model, learner = self.model, self.model._mlsystem
        for name, what in self._names().items():
            learner.logs.claim(name, what)
        learner.logs.check(learner.metric_names())
        self.influence = Influence(learner)
        model.train_function = WatchedStep(model.train_function, self)

    def _names(self) -> dict[str, str]:
        learner = self.model._mlsystem
        losses, models = learner.known.names, learner.models()
        names = {f"{m}_update_ratio": f"the update ratio of '{m}'" for m in models}
        return names | {
            f"{m}_gradient_norm_{loss}": f"the norm of the gradient of '{loss}' in '{m}'"
            for m in models
            for loss in losses
        }

    def on_epoch_begin(self, epoch: int, logs: Any = None) -> None:
        """Reset the means. See Keras."""
        self.batches = self.looks = 0
        self.sums = {}

    def on_epoch_end(self, epoch: int, logs: Any = None) -> None:
        """Add the means to the logs. `fit` calls this callback before all others."""
        if logs is not None and self.looks:
            logs |= {name: total / self.looks for name, total in self.sums.items()}

    def step(self, function: Any, *given: Any) -> Any:
        """Run a training step, or several as one, and measure a batch if it is due."""
        steps = self.model.steps_per_execution
        due = -self.batches % self.every < steps
        self.batches += steps
        if not due:
            return function(*given)
        batch, given = engine.peek(self.model, *given)
        if batch is None:  # the data has ended
            return function(*given)
        norms, before = self.influence(batch), weights(self.model)
        result = function(*given)
        self._add(norms, before)
        return result

    def _add(self, norms: Any, before: dict[str, list[Any]]) -> None:
        after = weights(self.model)
        found = {f"{m}_update_ratio": update_ratio(old, after[m]) for m, old in before.items()}
        for loss, row in norms.items():
            found |= {f"{model}_gradient_norm_{loss}": n or 0.0 for model, n in row.items()}
        self.looks += 1
        self.sums = {name: self.sums.get(name, 0.0) + value for name, value in found.items()}

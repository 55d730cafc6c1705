"""GradientNorms: how strongly losses pull at models, logged in the course of training."""

from typing import Any

import keras
from keras import ops

from mlsystem import _learner
from mlsystem._checks import is_count
from mlsystem.diagnostics.gradient_norms import Influence, norm
from mlsystem.engine import engine


class GradientNorms(keras.callbacks.Callback):
    """Logs how large the gradients are, and how far each update goes, now and then.

    Each epoch logs, as means over the batches that were looked at,

    - `MODEL_gradient_norm_LOSS`: the norm of the gradient of each loss in each model, whether or
      not the model follows it, before the weights of `routing` and others.
    - `MODEL_update_ratio`: the norm of what a step changed the weights of a model by, over the norm
      of the weights. About 0.001 is usual.

    ```python
    gan.fit(images, epochs=10, callbacks=[ml.callbacks.GradientNorms(every=100)])
    ```

    Training is the same with and without it, bit for bit. A batch that is looked at costs one more
    forward pass and a backward pass per loss; the others cost nothing. With
    `steps_per_execution` it is the first batch of an execution, and the ratio is that of its steps
    together.

    Args:
        every: the first batch of each epoch is looked at, and then every so many.

    Raises:
        ValueError: before training, where one of the names is that of another log.
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
        """Called by Keras."""
        if not isinstance(model, keras.Model) or _learner.of(model) is None:
            raise ValueError(
                "GradientNorms is for the `fit` of a whole MLModel or MLSystem. Give it there, "
                "without For."
            )
        super().set_model(model)

    def on_train_begin(self, logs: Any = None) -> None:
        """Looks into the steps of this `fit` from now on."""
        model, learner = self.model, self.model._mlsystem
        for name, what in self._names().items():
            learner.logs.claim(name, what)
        learner.logs.check(learner.metric_names())
        self.influence = Influence(learner)
        model.train_function = _Watched(model.train_function, self)

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
        """See Keras."""
        self.batches = self.looks = 0
        self.sums = {}

    def on_epoch_end(self, epoch: int, logs: Any = None) -> None:
        """Puts the means into the logs. Of the callbacks of a `fit`, this one is called first."""
        if logs is not None and self.looks:
            logs |= {name: total / self.looks for name, total in self.sums.items()}

    def step(self, function: Any, *given: Any) -> Any:
        """Runs a training step, or several as one, and looks at it if it is time."""
        steps = self.model.steps_per_execution
        due = -self.batches % self.every < steps
        self.batches += steps
        if not due:
            return function(*given)
        batch, given = engine.peek(self.model, *given)
        if batch is None:  # the data has ended
            return function(*given)
        norms, before = self.influence(batch), self._weights()
        result = function(*given)
        self._add(norms, before)
        return result

    def _weights(self) -> dict[str, list[Any]]:
        models = self.model._mlsystem.models().items()
        return {name: [ops.copy(w.value) for w in m.trainable_weights] for name, m in models}

    def _add(self, norms: Any, before: dict[str, list[Any]]) -> None:
        after = self._weights()
        found = {f"{m}_update_ratio": _ratio(old, after[m]) for m, old in before.items()}
        for loss, row in norms.items():
            found |= {f"{model}_gradient_norm_{loss}": n or 0.0 for model, n in row.items()}
        self.looks += 1
        self.sums = {name: self.sums.get(name, 0.0) + value for name, value in found.items()}


class _Watched:
    """A training function with someone who looks at it."""

    def __init__(self, function: Any, watcher: GradientNorms) -> None:
        self.unwatched = function
        self.watcher = watcher

    def __call__(self, *given: Any) -> Any:
        return self.watcher.step(self.unwatched, *given)


def unwatched(function: Any) -> Any:
    """A training function as it is without callbacks that look at it."""
    return unwatched(function.unwatched) if isinstance(function, _Watched) else function


def _ratio(before: list[Any], after: list[Any]) -> float:
    moved = [new - old for old, new in zip(before, after, strict=True)]
    numbers = [float(ops.convert_to_numpy(norm(tensors))) for tensors in (moved, before)]
    return numbers[0] / max(numbers[1], keras.config.epsilon())

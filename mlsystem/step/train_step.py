"""`TrainStep`: `train_step`, `update`, `minimize` and `log`, written once for all backends.

`TrainStep` holds the step methods of models and systems. The differences between a model and a
system are in their learners (`_learner.py`).
"""

import warnings
from collections.abc import Mapping
from typing import Any

from keras import ops

from mlsystem import _keras
from mlsystem._learner import Learner
from mlsystem.step import context, forward, model_updates, replica_means, routed_gradients
from mlsystem.step.loss_values import LossValues
from mlsystem.step.routed_gradients import Gradients


class NoLosses(dict[str, Any]):
    """The empty losses of a batch on which no model was due."""

    def __missing__(self, name: str) -> Any:
        raise ValueError(
            f"No model was due on this batch, so there is no loss '{name}'. Look at what `update` "
            "returns under `if losses:`."
        )


class TrainStep(_keras.Hooks):
    """The step methods of a Keras model. `MLModel` subclasses it. Users do not."""

    _mlsystem: Learner

    @context.make(training=True)
    def train_step(self, data: Any) -> Any:
        """Run one training step: update the models of each phase in turn.

        Override it to write your own step. The signature is the same on every backend, and
        assignments take effect at once.

        Args:
            data: a batch as the data set yields it: `x`, `(x, y)` or `(x, y, sample_weight)`.

        Returns:
            The logs: `self.get_metrics_result()`.
        """
        learner = self._mlsystem
        for phase, models in enumerate(learner.phases()):
            self.update(data, models, phase=phase)
        if not learner.models():
            _warn_untrained(learner)
            forward.observe(learner, data, training=True)
        return _step_logs(learner)

    @context.make(training=False)
    def test_step(self, data: Any) -> Any:
        """Run one step of `evaluate`: compute all losses and metrics, without an update.

        Args:
            data: a batch as the data set yields it.

        Returns:
            The logs: `self.get_metrics_result()`.
        """
        forward.observe(self._mlsystem, data, training=False)
        return _step_logs(self._mlsystem)

    def update(
        self, data: Any, models: Any = None, when: Any = None, phase: int | None = None
    ) -> tuple[Any, dict[str, Any]]:
        """Update some models on a batch: forward pass, losses, gradients, optimizers and logs.

        Call it in your own `train_step` to decide which models are updated, and how often.

        ```python
        def train_step(self, data):
            for _ in range(5):
                self.update(data, models=("critic",))
            self.update(data, models=("generator",))
            return self.get_metrics_result()
        ```

        Args:
            data: the batch.
            models: names of models, or of lists of models. All models by default. Frozen models,
                and models not due on this batch (`update_every` and similar), are skipped.
            when: a boolean scalar tensor. If it is false, weights and optimizers do not change
                and nothing is logged. The compiled step evaluates it.
            phase: the index passed to a `forward` that has an argument `phase`.

        Returns:
            `(outputs, losses)`: the result of `forward`, and the losses and their named terms as
            scalars. If no model was due, `(None, {})`: read losses under `if losses:`.
        """
        learner, this = self._mlsystem, self._mlsystem.step
        due = model_updates.due(learner, this, models)
        if not due:
            return None, NoLosses()
        with context.when(learner, when):
            batch = context.batch_of(this, data)
            found = self.gradients(data, list(due), phase=phase)  # forward, losses, gradients
            updated = model_updates.apply(learner, this, found, due)
            learner.update_metrics(this, batch, found.outputs, updated)
        return found.outputs, {**found.taken.losses, **found.taken.terms}

    def gradients(self, data: Any, models: Any = None, phase: int | None = None) -> Gradients:
        """Compute the gradients of some models, from the losses they follow or from one loss.

        Args:
            data: a batch, or a function without arguments that returns a loss.
            models: names of models. All models by default.
            phase: the index passed to a `forward` that has an argument `phase`.

        Returns:
            `{model: [gradient per trainable weight]}`, in the order of `trainable_weights`. The
            gradient is zero if the losses do not depend on the weight. `apply_gradients` leaves
            such a weight alone, unless you replace the zero by another gradient.
        """
        learner, this = self._mlsystem, self._mlsystem.step
        named = model_updates.named(learner, models)
        if callable(data):
            return _gradients_of(learner, this, data, named, None)
        batch = context.batch_of(this, data)

        def run() -> tuple[LossValues, Any]:
            return forward.forward_losses(learner, batch, True, phase)

        return routed_gradients.take(learner, this, run, learner.rows, named, learner.balance)

    def minimize(
        self, loss_fn: Any, models: Any = None, name: str | None = None, when: Any = None
    ) -> Any:
        """Update some models with a loss of your own, logged as `NAME_loss` and part of `loss`.

        Args:
            loss_fn: function without arguments that returns the loss: a scalar tensor, or one
                loss per sample.
            models: names of models. All models by default.
            name: name of the loss. By default the names of the models, joined by `_`.
            when: as in `update`.

        Returns:
            The loss, a scalar tensor. None if there is no model to update on this batch.
        """
        learner, this = self._mlsystem, self._mlsystem.step
        due = model_updates.due(learner, this, models)
        if not due:
            return None
        with context.when(learner, when):
            found = _gradients_of(learner, this, loss_fn, due, name)
            model_updates.apply(learner, this, found, due)
        [loss] = found.taken.losses.values()
        return loss

    def apply_gradients(self, gradients: Mapping[str, Any], when: Any = None) -> None:
        """Apply `{model: [gradient per trainable weight]}`, each by its model's own optimizer.

        A weight whose gradient is None does not change: no weight decay, no momentum. A model
        without any gradient does not change either, nor does its optimizer.

        The losses behind the most recent gradients of these models are logged. If the update is
        skipped, variables that `forward` may assign return to their earlier values.

        Args:
            gradients: the result of `gradients`, or other gradients of the same shapes.
            when: as in `update`.
        """
        learner, this = self._mlsystem, self._mlsystem.step
        model_updates.check_table(gradients)
        due = model_updates.due(learner, this, gradients)
        with context.when(learner, when):
            model_updates.apply(learner, this, gradients, due)

    def log(self, name: str, value: Any) -> None:
        """Log the mean over the epoch of a value that is not a loss.

        Call it in `forward`, in a loss or in a step. Outside of a step it does nothing.

        Args:
            name: name in the logs. A name that is already used raises an error.
            value: tensor of any shape. Its mean is logged.
        """
        if value is None:
            raise ValueError(
                f"self.log('{name}') got None. If that comes from `update` or `minimize`, no model "
                "was due on this batch. Log it only where it is not None."
            )
        this = context.running()
        if this is not None:
            value = ops.mean(ops.cast(value, "float32"))
            value, size = replica_means.of_value(value, this.batch.size)
            context.track(this, name, f"self.log('{name}')", value, size)


def _gradients_of(
    learner: Learner, this: context.Running, loss_fn: Any, models: dict[str, Any], name: Any
) -> Gradients:
    """Compute the gradients of one loss that all of the models follow."""
    name = name or "_".join(models)

    def run() -> tuple[LossValues, Any]:
        return forward.one_loss(loss_fn, name), None

    rows: Any = {model: {name: (1.0,)} for model in models}
    return routed_gradients.take(learner, this, run, lambda _: rows, models)


def _step_logs(learner: Learner) -> Any:
    """Return the logs of a step: from Keras' `compute_metrics`, or the running means."""
    this = learner.step
    return this.logs if this and this.logs is not None else learner.model.get_metrics_result()


def _warn_untrained(learner: Learner) -> None:
    """Warn once that there is nothing to train."""
    if "" in learner.compiled.warned:
        return
    learner.compiled.warned.add("")  # no model has this name
    known = ", ".join(repr(name) for name in learner.known_models())
    warnings.warn(
        f"'{learner.name}' has no trainable weights, so training changes none. "
        + (f"All of its models are frozen: {known}. " if known else "")
        + "Its losses and metrics are still computed. Set `trainable = True` to train it.",
        stacklevel=2,
    )

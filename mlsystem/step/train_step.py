"""The arrow of a step: data, forward, losses, gradients, optimizers, metrics, logs.

Written once, for every backend. `TrainStep` holds the methods of models and systems that a step is
made of. What differs between the two is said by their learner (`_learner.py`).
"""

import warnings
from collections.abc import Mapping
from typing import Any

from keras import ops

from mlsystem import _keras
from mlsystem._learner import Learner
from mlsystem.losses.found import Taken
from mlsystem.step import conditional, context, forward, model_updates, routed_gradients
from mlsystem.step.routed_gradients import Gradients


class NoLosses(dict[str, Any]):
    """The losses on a batch on which no model was due: there are none."""

    def __missing__(self, name: str) -> Any:
        raise ValueError(
            f"No model was due on this batch, so there is no loss '{name}'. Look at what `update` "
            "returns under `if losses:`."
        )


class TrainStep(_keras.Hooks):
    """The step of a Keras model. Subclassed by `MLModel`, not by users."""

    _mlsystem: Learner

    @context.make(training=True)
    def train_step(self, data: Any) -> Any:
        """One training step: updates the models of each phase. Override it for a step of your own.

        The signature is the same on every backend, and assignments take effect at once.

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
        """One step of `evaluate`: all losses and metrics, no update.

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
        """One routed update of some models: forward, losses, gradients, optimizers, logs.

        ```python
        def train_step(self, data):
            for _ in range(5):
                self.update(data, models=("critic",))
            self.update(data, models=("generator",))
            return self.get_metrics_result()
        ```

        Args:
            data: the batch.
            models: names of models or of lists of them; all by default. Those that are frozen, or
                not updated on this batch (`update_every` and its kin), are left out.
            when: a boolean scalar tensor that decides, inside the compiled step, whether weights
                and optimizers change and whether anything is logged.
            phase: the index given to a `forward` that names `phase`.

        Returns:
            `(outputs, losses)`: what `forward` returned, and the losses and their named terms as
            scalars. `(None, {})` where no model was due: look at them under `if losses:`.
        """
        learner = self._mlsystem
        due = model_updates.due(learner, models)
        if not due:
            return None, NoLosses()
        with conditional.when(learner, when):
            batch = context.batch_of(learner, data)
            found = self.gradients(data, due, phase=phase)  # forward, losses, routed gradients
            updated = model_updates.apply(learner, found, due)
            learner.update_metrics(batch, found.outputs, updated)
        return found.outputs, {**found.taken.losses, **found.taken.terms}

    def gradients(self, data: Any, models: Any = None, phase: int | None = None) -> Gradients:
        """The gradients of some models: of the losses that they follow, or of any one loss.

        Args:
            data: a batch, or a function without arguments that returns a loss.
            models: names of models; all by default.
            phase: the index given to a `forward` that names `phase`.

        Returns:
            `{model: [gradient per trainable weight]}`, in the order of `trainable_weights`,
            zero where the losses do not depend on the weight. `apply_gradients` leaves such a
            weight alone, unless you put another gradient in the place of that zero.
        """
        learner = self._mlsystem
        names = model_updates.named(learner, models)
        if callable(data):
            return _gradients_of(learner, data, names, None)
        batch = context.batch_of(learner, data)

        def run() -> tuple[Taken, Any]:
            return forward.forward_losses(learner, batch, True, phase)

        return routed_gradients.take(learner, run, learner.rows, names, learner.balance)

    def minimize(
        self, loss_fn: Any, models: Any = None, name: str | None = None, when: Any = None
    ) -> Any:
        """Updates some models down a loss of your own, logged as `NAME_loss` and part of `loss`.

        Args:
            loss_fn: function without arguments that returns the loss: a scalar tensor, or one
                loss per sample.
            models: names of models; all by default.
            name: name of the loss; by default those of the models.
            when: as in `update`.

        Returns:
            The loss, a scalar tensor; None where there is no model to update on this batch.
        """
        learner = self._mlsystem
        due = model_updates.due(learner, models)
        if not due:
            return None
        with conditional.when(learner, when):
            found = _gradients_of(learner, loss_fn, due, name)
            model_updates.apply(learner, found, due)
        [loss] = found.taken.losses.values()
        return loss

    def apply_gradients(self, gradients: Mapping[str, Any], when: Any = None) -> None:
        """Applies `{model: [gradient per trainable weight]}`, each by its model's own optimizer.

        A weight whose gradient is None is left alone: no weight decay, no momentum. So is a model,
        with its optimizer, that has no gradient at all.

        Logs the losses that the gradients of these models were last taken of. Where the update is
        skipped, variables that `forward` may assign get back their values of before it.

        Args:
            gradients: what `gradients` gave, or others of the same shapes.
            when: as in `update`.
        """
        learner = self._mlsystem
        model_updates.check_table(gradients)
        due = model_updates.due(learner, gradients)
        with conditional.when(learner, when):
            model_updates.apply(learner, gradients, due)

    def log(self, name: str, value: Any) -> None:
        """Logs the mean over the epoch of something that is not a loss.

        Call it anywhere in `forward`, a loss or a step; elsewhere it does nothing.

        Args:
            name: name in the logs; one that is taken is an error.
            value: tensor of any shape, averaged.
        """
        if value is None:
            raise ValueError(
                f"self.log('{name}') got None. If that comes from `update` or `minimize`, no model "
                "was due on this batch. Log it only where it is not None."
            )
        this = context.running()
        if this is not None:
            value = ops.mean(ops.cast(value, "float32"))
            context.track(this.learner, name, f"self.log('{name}')", value, this.batch.size)


def _gradients_of(learner: Learner, loss_fn: Any, names: list[str], name: str | None) -> Gradients:
    """The gradients of one loss of a user's own, which all of the models follow."""
    name = name or "_".join(names)

    def run() -> tuple[Taken, Any]:
        return forward.one_loss(loss_fn, name), None

    rows: Any = {model: {name: (1.0,)} for model in names}
    return routed_gradients.take(learner, run, lambda _: rows, names)


def _step_logs(learner: Learner) -> Any:
    """What a step returns: the logs of Keras' `compute_metrics`, or the running means."""
    this = learner.step
    return this.logs if this and this.logs is not None else learner.model.get_metrics_result()


def _warn_untrained(learner: Learner) -> None:
    """Says once that there is nothing to train."""
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

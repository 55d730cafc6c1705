"""The arrow: data, forward, losses, gradients, optimizers, logs. Written once, for every backend.

A `Learner` is a Keras model that trains some models by some losses. What these are is said by
its two kinds: a model alone (`model.py`) and a system of models (`system.py`).
"""

import functools
import warnings
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from keras import ops

from mlsystem import engine
from mlsystem._errors import named_in_errors
from mlsystem._tensors import describe
from mlsystem.data.batch import Batch
from mlsystem.engine import select
from mlsystem.fit.trainer import Trainer
from mlsystem.losses import reduction
from mlsystem.losses.found import Taken
from mlsystem.optimizers import properties
from mlsystem.routing import model_names, routing_table
from mlsystem.step import conditional, context, nonfinite
from mlsystem.step.routed_gradients import Gradients, applicable, check_fit, existing, gradients


class NoLosses(dict[str, Any]):
    """The losses on a batch on which no model was due: there are none."""

    def __missing__(self, name: str) -> Any:
        raise ValueError(
            f"No model was due on this batch, so there is no loss '{name}'. Look at what `update` "
            "returns under `if losses:`."
        )


class Learner(Trainer):
    """Holds the step. Subclassed by `MLModel` and `MLSystem`, not by users."""

    @context.make(training=True)
    def train_step(self, data: Any) -> Any:
        """One training step: updates the models of each phase. Override it for a step of your own.

        The signature is the same on every backend, and assignments take effect at once.

        Args:
            data: a batch as the data set yields it: `x`, `(x, y)` or `(x, y, sample_weight)`.

        Returns:
            The logs: `self.get_metrics_result()`.
        """
        for phase, models in enumerate(self._phase_models()):
            self.update(data, models, phase=phase)
        if not self._models():
            self._warn_untrained()
            self._observe(data, training=True)
        return self._step_logs()

    @context.make(training=False)
    def test_step(self, data: Any) -> Any:
        """One step of `evaluate`: all losses and metrics, no update.

        Args:
            data: a batch as the data set yields it.

        Returns:
            The logs: `self.get_metrics_result()`.
        """
        self._observe(data, training=False)
        return self._step_logs()

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
        names = self._due(models)
        if not names:
            return None, NoLosses()
        with conditional.when(self, when):
            found = self.gradients(data, names, phase=phase)
            updated = self._apply(found)
            self._update_metrics(context.batch_of(self, data), found.outputs, updated)
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
        if callable(data):
            return self._gradients_of(data, self._names(models), None)
        return self._pend(
            *gradients(
                self,
                lambda: self._forward_losses(context.batch_of(self, data), True, phase),
                self._rows,
                self._names(models),
                self._balance(),
            )
        )

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
        names = self._due(models)
        if not names:
            return None
        with conditional.when(self, when):
            found = self._gradients_of(loss_fn, names, name)
            self._apply(found)
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
        with conditional.when(self, when):
            self._apply(gradients)

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
            this.learner._track(name, f"self.log('{name}')", value, this.batch.size)

    # What the two kinds say ------------------------------------------------------------------

    def _models(self) -> dict[str, Any]:
        """The models that are trained, by name."""
        raise NotImplementedError

    @property
    def optimizers(self) -> Mapping[str, Any]:
        """The Keras optimizer of each model that is trained."""
        raise NotImplementedError

    def _rows(self, losses: Sequence[str]) -> routing_table.Rows:
        """Which of the losses each model follows, with which weights."""
        raise NotImplementedError

    def _balance(self) -> Any:
        """What balances the losses, if anything does."""
        return None

    def _find_losses(self, batch: Batch, outputs: Any, training: bool) -> Taken:
        """The losses of one forward pass, and their named terms."""
        raise NotImplementedError

    def _update_metrics(
        self, batch: Batch, outputs: Any, updated: Mapping[str, Any] | None
    ) -> None:
        """Updates the metrics of models that were updated, where they were, or of all."""
        raise NotImplementedError

    def _phase_models(self) -> list[list[str]]:
        """The models of each phase."""
        return [list(self._models())]

    def _known_models(self) -> list[str]:
        """The names of the models that are trained, or would be if they were not frozen."""
        return list(self._models())

    def _follow(self, updated: Mapping[str, Any]) -> None:
        """Moves the copies that follow some models, where these were updated."""

    def _forward_state(self) -> list[Any]:
        """The variables that are put back where the update of any of its models is skipped."""
        return [] if self._run.gate is None else nonfinite.forward_state(self)

    # How the step goes -----------------------------------------------------------------------

    def _forward_losses(
        self, batch: Batch, training: bool, phase: int | None = None
    ) -> tuple[Taken, Any]:
        """One forward pass and its losses."""
        outputs = self._call_forward(batch, training, phase)
        if outputs is None:
            raise ValueError(
                f"{type(self).__name__}.forward returned None. Does it end in a `return`?"
            )
        taken = self._find_losses(batch, outputs, training)
        if not taken.losses:
            raise ValueError(
                f"No model of '{self.name}' has a loss, so there is nothing to minimize. Give a "
                "model a `loss` method or `loss=`, or override `compute_losses`."
            )
        if training:  # what is evaluated may have fewer
            self._run.loss_names = list(taken.losses)
        if training or not self._run.parts:
            self._run.parts = list(taken.parts)
        return taken, outputs

    def _observe(self, data: Any, training: bool) -> None:
        """Runs `forward` and logs all losses and metrics; updates nothing."""
        batch = context.batch_of(self, data)
        taken, outputs = self._forward_losses(batch, training)
        if this := context.of(self):
            this.count(taken, dict.fromkeys(taken.losses))
        self._update_metrics(batch, outputs, None)

    def _warn_untrained(self) -> None:
        """Says once that there is nothing to train."""
        if "" in self._run.warned:
            return
        self._run.warned.add("")  # no model has this name
        known = ", ".join(repr(name) for name in self._known_models())
        warnings.warn(
            f"'{self.name}' has no trainable weights, so training changes none. "
            + (f"All of its models are frozen: {known}. " if known else "")
            + "Its losses and metrics are still computed. Set `trainable = True` to train it.",
            stacklevel=2,
        )

    def _call_forward(self, batch: Batch, training: bool, phase: int | None = None) -> Any:
        """Runs `forward`, which gets `y`, `training` and `phase` where it names them."""
        offered = {"y": batch.y, "training": training, "phase": phase}
        named = self.call_signature_parameters
        return self(batch.x, **{name: v for name, v in offered.items() if name in named})

    def _names(self, models: Any) -> list[str]:
        """The models that are named, groups spelled out; all by default."""
        trained = self._models()
        if models is None:
            return list(trained)
        return [
            n for n in model_names.resolve(models, self._known_models(), "models") if n in trained
        ]

    def _due(self, models: Any) -> list[str]:
        """Those of the models that are updated on this batch."""
        context.check_branch(self)
        due = self._run.due
        return [name for name in self._names(models) if due is None or name in due]

    def _gradients_of(self, loss_fn: Any, names: list[str], name: str | None) -> Gradients:
        name = name or "_".join(names)
        if not callable(loss_fn):
            raise TypeError(
                f"minimize got a {type(loss_fn).__name__}. Give a function without arguments that "
                "computes the loss: self.minimize(lambda: ..., models)."
            )

        def forward() -> tuple[Taken, Any]:
            with named_in_errors(f"The function of the loss '{name}', called without arguments"):
                found = loss_fn()
            loss, size = reduction.scalar(found, f"The loss '{name}'")
            return Taken({name: loss}, sizes={name: size}), None

        rows: routing_table.Rows = {model: {name: (1.0,)} for model in names}
        found, _ = gradients(self, forward, lambda _: rows, names)
        found.taken.whole = False
        return self._pend(found, rows)

    def _pend(self, found: Gradients, rows: routing_table.Rows) -> Gradients:
        """Remembers which losses to log once the gradients are applied.

        Those that a loss takes of others, to be differentiated again, are not applied.
        """
        this = context.of(self)
        if this and not this.depth:
            this.zeros += found.zeros
            if older := next((this.pending[n][1] for n in rows if n in this.pending), None):
                both = [*found.taken.before, *older.before]  # of two, the older value stays
                found.taken.before = list({id(v): (v, old) for v, old in both}.values())
            known = list(found.taken.losses)
            this.pending |= {
                m: (routing_table.followed([row], known), found.taken) for m, row in rows.items()
            }
        return found

    def _apply(self, gradients: Mapping[str, Any]) -> dict[str, Any]:
        """Applies gradients; returns, by model, the condition under which it was updated."""
        is_table = isinstance(gradients, Mapping)
        if not is_table or not all(isinstance(g, Iterable) for g in gradients.values()):
            raise TypeError(
                f"apply_gradients got {describe(gradients)}. Give {{model: [gradient per "
                "trainable weight]}, as self.gradients(data) returns."
            )
        zeros = this.zeros if (this := context.of(self)) else ()
        found = {name: existing(gradients, name, zeros) for name in self._due(gradients)}
        finite = self._finite(found)
        self._put_back(gradients, functools.reduce(select.both, finite.values(), self._run.gate))
        asked = {name: self._wanted(name, condition) for name, condition in finite.items()}
        wanted = {name: select.both(self._run.gate, c) for name, c in asked.items()}
        updated = {n: select.both(c, finite[n]) for n, c in wanted.items()}
        moved = {n: self._apply_to(n, found[n], wanted[n], c) for n, c in updated.items()}
        self._follow({n: c for n, c in moved.items() if any(g is not None for g in found[n])})
        self._count_pending(updated)
        return updated

    def _finite(self, gradients: Mapping[str, Any]) -> dict[str, Any]:
        """Whether those of each model are finite, boolean tensors; None where nobody asks."""
        return dict.fromkeys(gradients)

    def _put_back(self, gradients: Mapping[str, Any], condition: Any) -> None:
        """Undoes what `forward` has assigned, unless a condition holds."""
        this = context.of(self)
        pending = this.pending if this else {}
        found = [pending[name][1] for name in gradients if name in pending]
        found = [gradients.taken] if isinstance(gradients, Gradients) else found
        for taken in {id(taken): taken for taken in found if condition is not None}.values():
            select.keep(condition, taken.before, engine.chosen.changed)

    def _wanted(self, name: str, finite: Any) -> Any:
        """The condition of `update_when` for a model; None where there is none."""
        condition, this = self._run.when.get(name), context.of(self)
        if condition is None or this is None or name not in this.pending:
            return None
        _, taken = this.pending[name]
        if not taken.whole:
            return None
        wanted = conditional.ask(name, condition, taken.losses | taken.terms)
        share = ops.cast(select.both(wanted, finite), "float32")
        self._track(f"{name}_updated", f"the share of updates of '{name}'", share, this.batch.size)
        return wanted

    def _apply_to(self, name: str, found: list[Any], wanted: Any, finite: Any) -> Any:
        """Applies the gradients of a model; returns the condition under which its weights moved."""
        weights = self._models()[name].trainable_weights
        check_fit(name, found, weights)
        optimizer = self.optimizers[name]
        # One that scales the loss lowers its scale by what is not finite.
        condition = wanted if properties.scales(optimizer) else finite
        reached, weights = applicable(optimizer, found, weights, self._run.reached)
        if not reached:
            return condition
        before = properties.updates(optimizer)
        engine.chosen.apply(optimizer, reached, weights, condition)
        return condition if before is None else ops.not_equal(optimizer.iterations, before)

    # The logs --------------------------------------------------------------------------------

    def _count_pending(self, updated: Mapping[str, Any]) -> None:
        """Counts the losses that models follow, where one of these models was updated."""
        if not (this := context.of(self)):
            return
        pending = [(*this.pending.pop(n), c) for n, c in updated.items() if n in this.pending]
        for taken in {id(taken): taken for _, taken, _ in pending}.values():
            conditions: dict[str, list[Any]] = {}
            for names, other, condition in pending:
                for name in names if other is taken else ():
                    conditions.setdefault(name, []).append(condition)
            this.count(taken, {name: select.any_of(found) for name, found in conditions.items()})
            self._call_then(taken, select.any_of([c for _, t, c in pending if t is taken]))

    def _call_then(self, taken: Taken, condition: Any) -> None:
        """Lets the balance learn of what was applied, where it was."""
        if taken.then:
            held, how = self._balance().variables, (engine.chosen.kept, engine.chosen.changed)
            with select.only(condition, held, *how):
                while taken.then:
                    taken.then.pop(0)()

    def _track(self, name: str, owner: str, value: Any, weight: Any, gated: bool = False) -> None:
        """Adds a value to the running mean of a name; a gated one may have been kept out."""
        self._run.logs.update(name, owner, value, weight)
        if this := context.of(self):
            this.touched[name] = None
            if gated or self._run.gate is not None:
                self._run.logs.gated.add(name)

    def _close_step(self, this: context.Step) -> None:
        """Ends a step: its losses go to the logs, and the batch is counted."""
        self._flush(this)

    def _flush(self, this: context.Step) -> None:
        """Moves the losses of a step into the running means."""
        raise NotImplementedError

    def _step_logs(self) -> Any:
        """What a step returns: the logs of Keras' `compute_metrics`, or the running means."""
        this = context.of(self)
        return this.logs if this and this.logs is not None else self.get_metrics_result()

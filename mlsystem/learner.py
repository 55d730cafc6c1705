"""The arrow: data, forward, losses, gradients, optimizers, logs. Written once, for every backend.

A `Learner` is a Keras model that trains some models by some losses. What these are is said by
its two kinds: a model alone (`model.py`) and a system of models (`system.py`).
"""

import functools
from collections.abc import Mapping, Sequence
from typing import Any

from keras import ops

from mlsystem import engine, gate, losses, routing, select, step
from mlsystem.data import Batch
from mlsystem.differentiate import Gradients, gradients, scaled
from mlsystem.step import Taken
from mlsystem.trainer import Trainer


class Learner(Trainer):
    """Holds the step. Subclassed by `MLModel` and `MLSystem`, not by users."""

    @step.make(training=True)
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
        return self._step_logs()

    @step.make(training=False)
    def test_step(self, data: Any) -> Any:
        """One step of `evaluate`: all losses and metrics, no update.

        Args:
            data: a batch as the data set yields it.

        Returns:
            The logs: `self.get_metrics_result()`.
        """
        batch = step.batch_of(self, data)
        taken, outputs = self._forward_losses(batch, training=False)
        if this := step.of(self):
            this.count(taken, dict.fromkeys(taken.losses))
        self._update_metrics(batch, outputs, None)
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
            scalars. `(None, {})` where no model was due.
        """
        names = self._due(models)
        if not names:
            return None, {}
        with gate.gate(self, when):
            before = [(v, engine.chosen.kept(v.value)) for v in self._forward_state()]
            found = self.gradients(data, names, phase=phase)
            updated = self._apply(found, before)
            self._update_metrics(step.batch_of(self, data), found.outputs, updated)
        return found.outputs, {**found.taken.losses, **found.taken.terms}

    def gradients(self, data: Any, models: Any = None, phase: int | None = None) -> Gradients:
        """The gradients of some models: of the losses that they follow, or of any one loss.

        Args:
            data: a batch, or a function without arguments that returns a loss.
            models: names of models; all by default.
            phase: the index given to a `forward` that names `phase`.

        Returns:
            `{model: [gradient per trainable weight]}`, in the order of `trainable_weights`,
            zero where the losses do not depend on the weight.
        """
        if callable(data):
            return self._gradients_of(data, self._names(models), None)
        return self._pend(
            *gradients(
                self,
                lambda: self._forward_losses(step.batch_of(self, data), True, phase),
                self._rows,
                self._names(models),
                self._balance(),
            )
        )

    def minimize(self, loss_fn: Any, models: Any = None, name: str | None = None) -> Any:
        """Updates some models down a loss of your own, logged as `NAME_loss` and part of `loss`.

        Args:
            loss_fn: function without arguments that returns the loss: a scalar tensor, or one
                loss per sample.
            models: names of models; all by default.
            name: name of the loss; by default those of the models.

        Returns:
            The loss, a scalar tensor; None where there is no model to update on this batch.
        """
        names = self._due(models)
        if not names:
            return None
        found = self._gradients_of(loss_fn, names, name)
        self.apply_gradients(found)
        [loss] = found.taken.losses.values()
        return loss

    def apply_gradients(self, gradients: Mapping[str, Any]) -> None:
        """Applies `{model: [gradient per trainable weight]}`, each by its model's own optimizer.

        Logs the losses that the gradients of these models were last taken of.
        """
        self._apply(gradients)

    def log(self, name: str, value: Any) -> None:
        """Logs the mean over the epoch of something that is not a loss.

        Call it anywhere in `forward`, a loss or a step; elsewhere it does nothing.

        Args:
            name: name in the logs; one that is taken is an error.
            value: tensor of any shape, averaged.
        """
        this = step.running()
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

    def _rows(self, losses: Sequence[str]) -> routing.Rows:
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
        """The variables that a forward pass on a bad batch may spoil."""
        return []

    # How the step goes -----------------------------------------------------------------------

    def _forward_losses(
        self, batch: Batch, training: bool, phase: int | None = None
    ) -> tuple[Taken, Any]:
        """One forward pass and its losses."""
        outputs = self._call_forward(batch, training, phase)
        taken = self._find_losses(batch, outputs, training)
        if not taken.losses:
            raise ValueError(
                f"No model of '{self.name}' has a loss, so there is nothing to minimize. Give a "
                "model a `loss` method or `loss=`, or override `compute_losses`."
            )
        if training:  # what is evaluated may have fewer
            self._run.loss_names = list(taken.losses)
        return taken, outputs

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
        return [n for n in routing.resolve(models, self._known_models(), "models") if n in trained]

    def _due(self, models: Any) -> list[str]:
        """Those of the models that are updated on this batch."""
        due = self._run.due
        return [name for name in self._names(models) if due is None or name in due]

    def _gradients_of(self, loss_fn: Any, names: list[str], name: str | None) -> Gradients:
        name = name or "_".join(names)

        def forward() -> tuple[Taken, Any]:
            value = loss_fn()
            return Taken({name: losses.scalar(value, f"The loss '{name}'")}), None

        rows: routing.Rows = {model: {name: (1.0,)} for model in names}
        found, _ = gradients(self, forward, lambda _: rows, names)
        found.taken.whole = False
        return self._pend(found, rows)

    def _pend(self, found: Gradients, rows: routing.Rows) -> Gradients:
        """Remembers which losses to log once the gradients are applied."""
        if this := step.of(self):
            known = list(found.taken.losses)
            this.pending |= {
                m: (routing.followed([row], known), found.taken) for m, row in rows.items()
            }
        return found

    def _apply(
        self, gradients: Mapping[str, Any], before: Sequence[tuple[Any, Any]] = ()
    ) -> dict[str, Any]:
        """Applies gradients; returns, by model, the condition under which it was updated.

        `before` are variables with the values that they get back where a gradient is not finite.
        """
        finite = {name: self._finite(name, gradients[name]) for name in self._due(gradients)}
        if (all_finite := functools.reduce(select.both, finite.values(), None)) is not None:
            select.keep(all_finite, before)
        updated = {name: self._wanted(name, condition) for name, condition in finite.items()}
        models = self._models()
        for name, condition in updated.items():
            weights = models[name].trainable_weights
            self._apply_to(name, weights, list(gradients[name]), condition)
        self._follow(updated)
        self._count_pending(updated)
        return updated

    def _finite(self, name: str, found: Sequence[Any]) -> Any:
        """Whether gradients are finite, a boolean tensor; None where nobody asks."""
        return None

    def _wanted(self, name: str, finite: Any) -> Any:
        """Under which condition a model is updated: that of `update_when`, and that given."""
        condition, this = self._run.when.get(name), step.of(self)
        if condition is None or this is None or name not in this.pending:
            return finite
        _, taken = this.pending[name]
        if not taken.whole:
            return finite
        wanted = select.both(gate.ask(name, condition, taken.losses | taken.terms), finite)
        share = ops.cast(wanted, "float32")
        self._track(f"{name}_updated", f"the share of updates of '{name}'", share, this.batch.size)
        return wanted

    def _apply_to(self, name: str, weights: list[Any], found: list[Any], condition: Any) -> None:
        if len(found) != len(weights):
            raise ValueError(
                f"apply_gradients got {len(found)} gradients for '{name}', "
                f"which has {len(weights)} trainable weights."
            )
        optimizer = self.optimizers[name]
        engine.chosen.apply(optimizer, scaled(optimizer, found), weights, condition)

    # The logs --------------------------------------------------------------------------------

    def _count_pending(self, updated: Mapping[str, Any]) -> None:
        """Counts the losses that models follow, where one of these models was updated."""
        if not (this := step.of(self)):
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
            with select.only(condition, self._balance().variables, engine.chosen.kept):
                while taken.then:
                    taken.then.pop(0)()

    def _track(self, name: str, owner: str, value: Any, weight: Any, gated: bool = False) -> None:
        """Adds a value to the running mean of a name; a gated one may have been kept out."""
        self._run.logs.update(name, owner, value, weight)
        if this := step.of(self):
            this.touched[name] = None
            if gated or this.gate is not None:
                self._run.logs.gated.add(name)

    def _close_step(self, this: step.Step) -> None:
        """Ends a step: its losses go to the logs, and the batch is counted."""
        self._flush(this)

    def _flush(self, this: step.Step) -> None:
        """Moves the losses of a step into the running means."""
        raise NotImplementedError

    def _step_logs(self) -> Any:
        """What a step returns: the logs of Keras' `compute_metrics`, or the running means."""
        this = step.of(self)
        return this.logs if this and this.logs is not None else self.get_metrics_result()

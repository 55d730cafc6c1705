"""The learner of a system: losses, metrics, state, and epoch logs with learning rates."""

from collections.abc import Iterable, Mapping, Sequence
from functools import cached_property
from typing import Any

import keras

from mlsystem import _keras, _learner
from mlsystem._learner import OwnLoss, SystemBase, variables_once
from mlsystem.balance.base import prepare as prepare_balance
from mlsystem.data.batch import Batch
from mlsystem.engine import engine, select
from mlsystem.models.model_learner import ModelLearner
from mlsystem.optimizers import system_optimizer
from mlsystem.preparation import configuration
from mlsystem.routing import loss_weights, members, model_names, routing_table, system_routing
from mlsystem.saving.weights_file import Members
from mlsystem.step import context, member_metrics, nonfinite, replica_means, system_losses
from mlsystem.step.loss_ledger import summed
from mlsystem.step.loss_values import LossValues
from mlsystem.step.running_means import loss_first


class SystemLearner(SystemBase, ModelLearner):
    """The learner of a system. `attributes` are the names that may hold members, in order."""

    shuffles_anew = True

    def __init__(self, model: Any, logs: Any, losses: Any) -> None:
        super().__init__(model, logs, losses)
        self.attributes: dict[str, None] = {}
        self.groups["_members"] = Members(model)

    def containers(self) -> list[str]:
        """Return the names of the lists and dicts that may hold members."""
        held = [name for name in self.attributes if hasattr(self.model, name)]
        return [name for name in held if not isinstance(getattr(self.model, name), keras.Layer)]

    # Before the first step -------------------------------------------------------------------

    def ensure_compiled(self) -> None:
        """Compile the system if necessary, and update the state that depends on frozen models."""
        if not self.model.compiled:
            self.model.compile()
        if self.is_ready:
            configuration.retrain(self)

    def finish_build(self) -> None:
        """Check the members and prepare all that the training of the system needs."""
        system = self.model
        for member in members.leaves(system).values():
            if _learner.is_copy(member) and member.source.built and not int(member.updates):
                member.start()
        members.check(system)
        members.give_keys(system)
        if not type(system).loss.__module__.startswith("mlsystem."):
            raise ValueError(
                f"{type(system).__name__} overrides `loss`. The losses of a system have names: "
                "override `compute_losses(self, x, y, outputs)`, which returns {name: loss}."
            )
        configuration.configure(self)
        loss_weights.check(system)
        prepare_balance(system)

    def retrain(self) -> None:
        """Update the state that depends on frozen models."""
        configuration.retrain(self)

    # Models, and the losses they follow ------------------------------------------------------

    def members(self) -> Mapping[str, Any]:
        """Return the members by path, those of nested systems included."""
        is_known = self.setup is not None and self.is_current
        return self.setup.members if self.setup and is_known else members.leaves(self.model)

    def models(self) -> dict[str, Any]:
        """Return the members with weights to train, by path."""
        found = self.members()
        return {name: model for name, model in found.items() if model.trainable_weights}

    def known_models(self) -> list[str]:
        """Return the members that are trained, or would be if they were not frozen."""
        found = self.members()
        return [name for name, member in found.items() if not _learner.is_copy(member)]

    def phases(self) -> Sequence[Sequence[str]]:
        """Return the models of each phase."""
        if self.setup is None:
            raise _learner.not_set_up(self.name)
        return self.setup.phases

    def rows(self, losses: Sequence[str]) -> routing_table.Rows:
        """Return the losses that each model follows, with their weights.

        A table may be changed in place, and is read again in each step.
        """
        routing = self.model.routing
        if not isinstance(routing, str) or self.given.loss_weights is not None or self.nested:
            return system_routing.rows(self, losses)
        key = routing, tuple(losses), tuple(self.known.parts), tuple(self.models())
        if key not in self.known_rows:
            self.known_rows[key] = system_routing.rows(self, losses)
        return self.known_rows[key]

    @property
    def balance(self) -> Any:
        """The balance of the losses, or None."""
        return self.model.balance

    @property
    def optimizers(self) -> Mapping[str, Any]:
        """The optimizer of each trained model."""
        optimizer = vars(self.model).get("optimizer")
        none: Mapping[str, Any] = system_optimizer.ByModel()
        return none if optimizer is None else optimizer.by_model

    # Known until the next configuration ------------------------------------------------------

    own_loss = OwnLoss(exists=True)  # the sum of the losses of the system
    nested = cached_property(lambda learner: members.nested(learner.model))
    with_losses = cached_property(system_losses.with_losses)
    layer_losses = cached_property(system_losses.layer_losses)
    metrics = cached_property(member_metrics.metrics_of)

    @cached_property
    def copies(self) -> list[Any]:
        """The copies among the members."""
        return [copy for copy in self.members().values() if _learner.is_copy(copy)]

    @cached_property
    def known_rows(self) -> dict[Any, routing_table.Rows]:
        """The rows of the routing, by the losses and models for which they were read."""
        return {}

    # Parts of a step -------------------------------------------------------------------------

    def find_losses(self, batch: Batch, outputs: Any, training: bool) -> LossValues:
        """Compute the losses of all members, and of the system itself."""
        taken = system_losses.find(self, batch, outputs, training)
        if not self.logs.sealed and self.step:
            # A mean for every loss: a loss that no model follows now may be followed later.
            for name in taken.losses:
                self.logs.make(f"{name}_loss", f"the loss '{name}'")
            for name in taken.terms:
                self.logs.make(name, f"the term '{name}'")
        return taken

    def finite(self, step: context.Running, gradients: Mapping[str, Any]) -> dict[str, Any]:
        """Return whether the gradients of each model are finite, as `nonfinite` requires."""
        return nonfinite.finite(self, step, gradients)

    def restorable(self) -> list[Any]:
        """Return the variables to restore if an update is skipped, conditional or not finite."""
        return self.assigned if self.model.nonfinite != "keep" else super().restorable()

    def follow(self, updated: Mapping[str, Any]) -> None:
        """Update the copies of the models that were updated."""
        if not self.copies:
            return
        models = self.members()
        conditions = {id(v): c for n, c in updated.items() for v in models[n].trainable_weights}
        for copy in self.copies:
            weights = copy.source.trainable_weights
            if found := [conditions[id(v)] for v in weights if id(v) in conditions]:
                copy.follow(select.any_of(found))

    def update_metrics(self, step: Any, batch: Batch, outputs: Any, updated: Any) -> None:
        """Update the metrics of each member that was updated, or of all members."""
        trained = self.models() if self.metrics else {}
        for name, metrics in self.metrics.items():
            mine = [] if updated is None else [c for n, c in updated.items() if _is_in(n, name)]
            if updated is None or mine or not model_names.named(name, trained):
                self._measure(name, metrics, batch, outputs, select.any_of(mine) if mine else None)
                if step is not None:
                    step.measured.add(name)

    def _measure(self, name: str, metrics: Any, batch: Batch, outputs: Any, condition: Any) -> None:
        parts = (batch.y, outputs, batch.sample_weight)
        how = engine.kept, engine.changed
        held = metrics.variables
        with select.only(condition, held, *how), replica_means.summed(lambda: held):
            own = (member_metrics.entry(self.model, part, name) for part in parts)
            member_metrics.measure(name, metrics, *own)

    # State and logs --------------------------------------------------------------------------

    def state_variables(self) -> list[Any]:
        """Return all variables that a step may read or assign, each once."""
        weights = loss_weights.variables(self.model)
        return variables_once([*super().state_variables(), *weights, *self._balancing()])

    def counted_variables(self) -> list[Any]:
        """Return the variables that count events of an update, and the state of the balance."""
        return [*super().counted_variables(), *self._balancing()]

    def _balancing(self) -> list[Any]:
        return [] if self.balance is None else self.balance.variables

    def to_logs(self, step: context.Step) -> None:
        """Move the losses of a step, and their sum, into the running means."""
        ledger = step.ledger
        means, owners = ledger.means(), ledger.owners
        logs = {name: name if name in owners else f"{name}_loss" for name in means}
        values = {
            log: (f"the {'term' if name in owners else 'loss'} '{name}'", *means[name])
            for name, log in logs.items()
        }
        is_gated = self.condition is not None
        gated = {log for name, log in logs.items() if is_gated or name in ledger.gated}
        top = system_routing.top(self.nested, [name for name in means if name not in owners])
        if not step.training:
            self.logs.evaluated |= {logs[name]: None for name in top}
        if top:
            values["loss"] = "the sum of the losses", *summed([means[name] for name in top])
            gated |= {"loss"} if is_gated or ledger.gated.issuperset(top) else set()
        self.logs.update(values)
        self.logs.gated |= gated
        step.touched |= dict.fromkeys(values)

    def close_step(self, step: context.Step) -> None:
        """End a step: move its losses to the logs, and count the batch."""
        super().close_step(step)
        if step.training and (optimizer := self.model.optimizer) is not None:
            optimizer.count_batch()

    def results(self) -> dict[str, Any]:
        """Return the running means: in a step the updated ones, else all that have a value."""
        this = self.step
        if this:
            self.to_logs(this)
        logs = self.logs.results(self._logged(this))
        if "loss" in logs and self._is_evaluated(this):
            logs["loss"] = self.logs.total(self.logs.evaluated)
        logs = loss_first(logs)
        for name, metric in self.metrics.items():
            if this is None or name in this.measured:
                logs |= {f"{name}_{n}": value for n, value in metric.result().items()}
        return logs | {metric.name: metric.result() for metric in _keras.own_metrics(self.model)}

    def _is_evaluated(self, this: context.Running) -> bool:
        if this is not None:
            return not this.training
        return self.call is not None and self.call.step == "test_step"

    def _logged(self, this: context.Running) -> Iterable[str] | None:
        """Return the names that a step logged. TensorFlow needs a name even if no model was due."""
        if this is None or this.touched or not this.training:
            return this.touched if this else None
        self.logs.gated.add("loss")
        return [name for name in ("loss",) if name in self.logs.trackers]

    def epoch_logs(self, logs: dict[str, Any]) -> dict[str, Any]:
        """Return the logs of an epoch: means, learning rates and numbers of skipped updates."""
        means, shown = self.model.get_metrics_result(), self.compiled.shown | logs
        logs = loss_first({name: means.get(name, value) for name, value in shown.items()})
        if self.call is not None and self.call.step != "train_step":
            return logs
        rates = system_optimizer.learning_rates(self.optimizers)
        return logs | rates | nonfinite.skipped(self)

    def metric_names(self) -> set[str]:
        """Return the names in the logs that belong to metrics."""
        own = {metric.name for metric in _keras.own_metrics(self.model)}
        return own | {
            f"{name}_{n}" for name, metric in self.metrics.items() for n in metric.result()
        }


def _is_in(model: str, member: str) -> bool:
    """Return whether a model is a member or inside it."""
    return bool(routing_table.followed([model], [member]))

"""The learner of a model that is trained alone: loss, optimizer, state and logs."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from functools import cached_property
from typing import Any

import keras

from mlsystem import _keras
from mlsystem._learner import Learner, OwnLoss, Setup, variables_once
from mlsystem.data.batch import Batch
from mlsystem.engine import engine
from mlsystem.optimizers.creation import extended, knows, make
from mlsystem.routing import routing_table
from mlsystem.saving.weights_file import Seeds
from mlsystem.step import context, nonfinite, reduction, replica_means
from mlsystem.step.loss_ledger import summed
from mlsystem.step.loss_values import ForwardLosses, LossValues
from mlsystem.step.train_function import trained


class ModelLearner(Learner):
    """The learner of a model that is trained alone, or as a member of a system."""

    def __init__(self, model: Any, logs: Any, losses: Any) -> None:
        super().__init__(model, logs, losses)
        # Saved by Keras beside the attributes. One object each, because Keras compares their ids.
        self.groups: dict[str, Any] = {"_seeds": Seeds(model)}

    @property
    def key(self) -> str:
        """The name of the model in the system that trains it, else its own name."""
        return self.role.key or self.name

    def overrides(self, method: str) -> bool:
        """Return whether the user's class overrides a method of the library."""
        found = getattr(type(self.model), method)
        return getattr(found, "_is_default", None) is not found  # `functools.wraps` copies it

    # Before the first step -------------------------------------------------------------------

    def ensure_compiled(self) -> None:
        """Compile a model that has no optimizer of its own yet, and see what is frozen."""
        model, role = self.model, self.role
        self.role = replace(role, optimizer=None)
        if not model.compiled or model.optimizer is None:
            model.compile(make(model.configure_optimizer(), self.key))
            self.role = replace(self.role, own=None)
        if self.call is not None and self.call.step == "test_step":
            self.role = replace(self.role, optimizer=role.optimizer)
        elif self.is_ready:
            self.retrain()

    def finish_build(self) -> None:
        """Build the optimizer, after the weights exist."""
        optimizer = self.model.optimizer
        if optimizer is not None:
            self.check_optimizer(optimizer)
            if not optimizer.built:
                optimizer.build(self.model.trainable_variables)
        self.setup = Setup(self.model.weights, self.members())
        self.compiled.trained = trained(self.setup.weights)

    def ready_optimizers(self) -> None:
        """Create the state of the optimizers, except for a model that a system trains."""
        if not self.model.trainable_weights or self.role.key:
            return
        if not self.overrides("compile"):
            self.ensure_compiled()
        if self.is_ready:
            self.retrain()  # to finish again would make new metrics, which no step knows
        elif hasattr(self.model, "optimizer"):
            self.finish_build()

    def retrain(self) -> None:
        """Extend the optimizer to unfrozen weights, if it does not know them."""
        model = self.model
        optimizer = getattr(model, "optimizer", None)
        thawed = self.compiled.trained and optimizer is not None and optimizer.built
        if thawed and not knows(optimizer, model.trainable_weights):
            vars(model)["optimizer"] = extended(optimizer, model.trainable_weights)
            model.test_function = None  # it holds the state of the earlier optimizer
        assert self.setup is not None
        self.compiled.trained = trained(self.setup.weights)

    # Models, and the losses they follow ------------------------------------------------------

    def members(self) -> Mapping[str, Any]:
        """Return the model itself under its key."""
        return {self.key: self.model}

    def models(self) -> dict[str, Any]:
        """Return the model itself by its name, if it has weights to train."""
        return {self.key: self.model} if self.model.trainable_weights else {}

    def rows(self, losses: Sequence[str]) -> routing_table.Rows:
        """Return the row of the model, which follows its own loss."""
        weights, terms = self.given.loss_weights, self.known.parts
        return routing_table.read("sum", [self.key], losses, weights, terms=terms)

    # Known until the next configuration ------------------------------------------------------

    @cached_property
    def own_loss(self) -> OwnLoss:  # type: ignore[override]
        """Whether the model has its own loss, and what kind of loss."""
        has_method, computes = self.overrides("loss"), self.overrides("compute_loss")
        is_given = _keras.compile_loss(self.model) is not None
        exists = has_method or computes or is_given
        return OwnLoss(exists, is_given and not has_method, computes and not has_method)

    assigned = cached_property(nonfinite.forward_state)

    # Parts of a step -------------------------------------------------------------------------

    def compute_loss(self, x: Any, y: Any, outputs: Any, sample_weight: Any, training: Any) -> Any:
        """Compute the `loss` method plus the regularizers. Store the terms in `losses`."""
        extra = reduction.total(self.model.losses)  # before `loss`, which may call layers again
        batch = Batch(x, y, sample_weight)
        found = reduction.of_model(self.model, self.key, batch, outputs, training)
        sizes = {self.key: found.size} | {f"{self.key}_{n}": s for n, s in found.sizes.items()}
        parts = found.terms | ({"": extra} if self.model.losses and found.terms else {})
        parts = {f"{self.key}/{name}": value for name, value in parts.items()}
        self.losses = ForwardLosses(taken=LossValues({}, found.terms, sizes=sizes, parts=parts))
        return found.value + extra

    def find_losses(self, batch: Batch, outputs: Any, training: bool) -> LossValues:
        """Compute the one loss of a model that is trained alone, with its terms."""
        if not self.own_loss.exists and not self.model.losses:
            return LossValues()
        self.losses = ForwardLosses()
        value = _keras.compute_loss(
            self.model,
            x=batch.x,
            y=batch.y,
            y_pred=outputs,
            sample_weight=batch.sample_weight,
            training=training,
        )
        taken, self.losses = self.losses.taken or LossValues(), ForwardLosses()
        loss, _ = reduction.scalar(value, f"The loss of '{self.key}'")
        terms = {f"{self.key}_{term}": value for term, value in taken.terms.items()}
        owners = dict.fromkeys(terms, self.key)
        return LossValues({self.key: loss}, terms, owners, taken.sizes, parts=taken.parts)

    def update_metrics(self, step: Any, batch: Batch, outputs: Any, updated: Any) -> None:
        """Update the metrics by Keras' `compute_metrics`. A step returns its logs."""
        if step is not None:
            with replica_means.summed(self._measured):
                logs = self.model.compute_metrics(batch.x, batch.y, outputs, batch.sample_weight)
            # With other replicas, the logs are read once more.
            is_whole = self.condition is None and not engine.replicas.reduces
            step.logs = logs if is_whole else None

    def _measured(self) -> list[Any]:
        """Return the variables of the metrics of `compile`."""
        metrics = _keras.compile_metrics(self.model)
        return [] if metrics is None else list(metrics.variables)

    def updated_by_hand(self) -> Iterator[Any]:
        """Yield the variables of metrics that only the user's own code updates."""
        for metric in _keras.own_metrics(self.model):
            yield from metric.variables

    # State and logs --------------------------------------------------------------------------

    def state_variables(self) -> list[Any]:
        """Return all variables that a step may read or assign, each once."""
        optimizer = getattr(self.model, "optimizer", None)
        transform = None if self.call is None else self.call.transform
        return variables_once(
            [
                *self.model.variables,
                *(optimizer.variables if optimizer is not None else []),
                *self.model.metrics_variables,
                *(transform.variables if transform is not None else []),
            ]
        )

    def to_logs(self, step: context.Step) -> None:
        """Move the losses and their terms into the running means."""
        means, owners = step.ledger.means(), step.ledger.owners
        for name in means:
            if name in owners:
                context.track(step, name, f"The term '{name}' of the loss", *means[name])
            elif name != self.key:
                context.track(step, f"{name}_loss", f"the loss '{name}'", *means[name])
        if top := [means[name] for name in means if name not in owners]:
            total, weight = summed(top)
            _keras.loss_tracker(self.model).update_state(total, sample_weight=weight)

    def epoch_logs(self, logs: dict[str, Any]) -> dict[str, Any]:
        """Return the logs of an epoch, as Keras makes them."""
        return _keras.epoch_logs(self.model, logs)

    def metric_names(self) -> set[str]:
        """Return the names in the logs that belong to metrics."""
        found = keras.Model.metrics.fget(self.model)
        # The result of a mean is one number, under the name of the metric.
        others = [
            metric for metric in found if type(metric).result is not keras.metrics.Mean.result
        ]
        results = [result for m in others if isinstance(result := m.result(), dict)]
        return {metric.name for metric in found}.union(*results)

"""MLSystem: a model made of models, which learn together."""

import functools
from collections.abc import Iterable, Mapping, Sequence
from contextlib import nullcontext
from typing import Any

import keras
from keras import ops

from mlsystem import _keras, engine
from mlsystem._attributes import DECLARED, SAVED
from mlsystem._signature import bind
from mlsystem.balance.base import prepare as prepare_balance
from mlsystem.data.adapter import Feed
from mlsystem.data.batch import Batch
from mlsystem.data.mldata import MLData
from mlsystem.diagnostics import gradient_report, summary
from mlsystem.diagnostics.gradient_report import GradientReport
from mlsystem.engine import select
from mlsystem.fit import data_arguments
from mlsystem.fit.trainer import Trainer
from mlsystem.losses import system_losses
from mlsystem.losses.found import Taken
from mlsystem.metrics import member_metrics
from mlsystem.metrics.running_means import loss_first
from mlsystem.models.ema import EMA
from mlsystem.models.model import MLModel, taken_name
from mlsystem.optimizers import making, system_optimizer
from mlsystem.preparation import configuration, member_optimizers
from mlsystem.routing import members, system_rows
from mlsystem.routing.loss_weights import check as check_loss_weights
from mlsystem.routing.loss_weights import variables as weight_variables
from mlsystem.routing.model_names import named
from mlsystem.routing.routing_table import Rows, followed
from mlsystem.saving import constructor_arguments, weights_file
from mlsystem.step import compiled_step, context, nonfinite


@keras.saving.register_keras_serializable("mlsystem")
class MLSystem(MLModel):
    """Models that learn together, each by its own optimizer and from the losses it follows.

    Its members are the models set as attributes, in lists and in dicts, named by their path:
    `generator`, `critics/0`. Override `forward`, which runs them once and returns everything
    that the losses look at, and say who follows which loss:

    ```python
    class GAN(ml.MLSystem):
        routing = "own"

        def __init__(self, generator, discriminator, latent=64):
            super().__init__()
            self.generator, self.discriminator = generator, discriminator
            self.latent = latent
            self.seed = keras.random.SeedGenerator(0)

        def forward(self, images, training=None):
            z = keras.random.normal((keras.ops.shape(images)[0], self.latent), seed=self.seed)
            fake = self.generator(z)
            return {"real": self.discriminator(images), "fake": self.discriminator(fake)}
    ```

    A system can be a member of another; there it counts as one member with one loss, its sum.

    `save` writes all that training goes on from, and `keras.saving.load_model` gives it back,
    compiled: see `MLModel` for what a constructor may take. In the file, models go by their names,
    whatever their order.

    Attributes:
        routing: which losses each model follows, one row per model. `"sum"` (default): all.
            `"own"`: the loss of its own name, and those that bear no model's name. A table
            `{model: {loss: weight}}`: a weight may be negative (gradient reversal), a Keras
            variable, or a Keras schedule of the number of batches before this one. A loss may be
            the term of one, as in `compile(loss_weights=)`.
        phases: groups of models that are updated one after another on each batch, each from a
            forward pass of its own: `[("critic",)] * 5 + [("generator",)]`. By default one phase
            with all models, from one forward pass and the old weights.
        update_every: `{model: n}`: the model is updated when the number of batches seen, this
            one included, is a multiple of n. Steps of your own leave it out on other batches too,
            and it costs nothing there; so with the next two.
        update_start: `{model: n}`: the model is not updated on the first n batches.
        update_end: `{model: n}`: the model is updated on the first n batches only.
        update_when: `{model: condition}`: a function of the losses and their terms, a dict by name,
            that gives a boolean scalar: the model is updated where it is true, which is decided
            inside the compiled step: `{"critic": lambda losses: losses["critic"] > 0.5}`. The
            share of batches on which it was is logged as `MODEL_updated`.
        nonfinite: what becomes of an update whose gradient is not finite. "skip" (default): the
            model, its optimizer, its EMA copies and the logs stay as they are. All that `forward`
            has assigned on the batch is put back, as the statistics of batch norm and queues, but
            not random seeds. `MODEL_skipped` in the logs of the epoch counts it, and a warning
            says so once. "raise": likewise, and training ends with a FloatingPointError. "keep":
            it is applied. An optimizer that scales the loss lowers its scale as ever. An update
            that only its scale made overflow is skipped in the same way, but not counted.
        balance: an object of `ml.balance`, which weighs losses as they are minimized, or keeps
            their gradients from conflicting; None for what `routing` says alone.

    A model is frozen and unfrozen by its `trainable`, or that of its layers, at any time, also by a
    callback in the middle of training: its optimizer keeps its state meanwhile.

    `forward` may name `y`, `training` and `phase` (the index of the phase; None outside training).
    Each phase runs it once, so that batch norm moves once a phase.
    Trainable weights that the system owns itself are the member `self`.
    """

    routing: Any = "sum"
    phases: Any = None
    update_every: Any = None
    update_start: Any = None
    update_end: Any = None
    update_when: Any = None
    nonfinite: str = "skip"
    balance: Any = None

    _declarations = DECLARED

    def __setattr__(self, name: str, value: Any) -> None:
        if "built" not in self.__dict__ and members.has_layer(value):
            raise RuntimeError(
                f"{type(self).__name__}.__init__ sets `{name}` before it calls "
                "`super().__init__()`. Call that first."
            )
        if isinstance(value, keras.Layer) and hasattr(MLSystem, name):
            raise ValueError(taken_name(self, name))
        if name[0] != "_" and isinstance(value, type) and issubclass(value, keras.Model):
            raise ValueError(
                f"`{name}` of {type(self).__name__} is the class {value.__name__}. Make a model: "
                f"`self.{name} = {value.__name__}(...)`. To keep a class, begin its name with an "
                "underscore."
            )
        if name in DECLARED and hasattr(self, "_run") and self._run.plan is not None:
            raise RuntimeError(
                f"`{name}` of '{self.name}' was set in the middle of `fit`. Set it between two of "
                "them. (Models may be frozen and unfrozen, and variables assigned, at any time.)"
            )
        if name[0] != "_" and name not in DECLARED and self._has_other(value) and self.built:
            raise RuntimeError(
                f"'{self.name}' has its weights already, and cannot be given another `{name}`. "
                f"Make a new {type(self).__name__} from the models that are to stay, which keep "
                "their weights, and call `setup` or `fit`. Its optimizers start from scratch."
            )
        before = getattr(self, name, None) if name in self._attributes() else None
        if isinstance(before, keras.Layer) and before is not value:
            _keras.untrack(self, before)  # or it would stay a part of the system
        with _keras.DotNotTrackScope() if name == "routing" and _trains(value) else nullcontext():
            super().__setattr__(name, value)
        if name in DECLARED and "_run" in self.__dict__:
            self._run.reset()
            self.train_function = self.test_function = None
        if not name.startswith("_") and members.holds_layer(value):
            members.give_names(name, value)
            self.__dict__.setdefault("_member_attributes", {})[name] = None
            if hasattr(self, "_run"):
                self._run.reset()

    def _attributes(self) -> Iterable[str]:
        """The names of the attributes that may hold members, in the order they were set."""
        return [*self.__dict__.get("_member_attributes", ())]

    def _containers(self) -> list[str]:
        """The names of the lists and dicts."""
        held = [name for name in self._attributes() if hasattr(self, name)]
        return [name for name in held if not isinstance(getattr(self, name), keras.Layer)]

    def _has_other(self, value: Any) -> bool:
        """Whether a value holds a layer that is no part of the system."""
        if not members.holds_layer(value):
            return False
        known = {id(layer) for layer in _keras.flat_layers(self)}
        return any(id(layer) not in known for _, layer in members.walk("", value))

    @functools.cached_property  # one object: Keras knows what it has saved by its id
    def _members(self) -> weights_file.Members:
        """What Keras saves in place of the lists and dicts."""
        return weights_file.Members(self)

    def __dir__(self) -> list[str]:
        # Keras saves what it finds among these names: each model by its own, and those in lists
        # and dicts by `_members`. In `layers` they would be numbered by class.
        hidden = {"layers", *self._containers()}
        return [name for name in super().__dir__() if name not in hidden]

    # What users override ---------------------------------------------------------------------

    def forward(self, x: Any, training: Any = None) -> Any:
        """Runs the models once and returns everything that the losses look at."""
        raise NotImplementedError(
            f"{type(self).__name__} does not say how to compute: override `forward(self, x)`."
        )

    def compute_losses(
        self, x: Any, y: Any, outputs: Any, sample_weight: Any = None, training: Any = None
    ) -> dict[str, Any]:
        """The losses by name: by default each member's own `loss`, under the member's name.

        Override it to add losses that belong to no single model, or to write all in one place:

        ```python
        def compute_losses(self, x, y, outputs):
            cycle = keras.ops.mean(keras.ops.abs(outputs["again"] - x))
            return super().compute_losses(x, y, outputs) | {"cycle": cycle}
        ```

        Args:
            x: the inputs in the batch.
            y: the targets in the batch; None without any.
            outputs: what `forward` returned.
            sample_weight: the weight of each sample; None without any.
            training: whether this is a training step.

        Returns:
            `{loss name: value}`: scalars, vectors of one loss per sample, or dicts of named terms.
        """
        this = context.running()
        if this is not None and sample_weight is None and training is None:
            sample_weight, training = this.batch.sample_weight, this.training
        return system_losses.member_losses(self, Batch(x, y, sample_weight), outputs, training)

    def loss(
        self, x: Any, y: Any, outputs: Any, sample_weight: Any = None, training: Any = None
    ) -> Any:
        """The sum of the losses of the system, a scalar tensor. See `compute_losses`."""
        taken = system_losses.find(self, Batch(x, y, sample_weight), outputs, bool(training))
        self._run.taken = taken
        names = system_rows.top(self, taken.losses)
        return sum((taken.losses[name] for name in names), ops.zeros(()))

    def data(self) -> Any:
        """The data of the system, where `fit` and `evaluate` are given none.

        Override it, or set the attribute, to return an `ml.MLData` or anything that `fit` takes.
        """
        return None

    def configure_optimizers(
        self, optimizer: Any = None, learning_rate: Any = None, **kwargs: Any
    ) -> dict[str, Any]:
        """The optimizer of each model: by default each model's own.

        ```python
        def configure_optimizers(self):
            return super().configure_optimizers("adam", 2e-4, beta_1=0.5) | {"critic": "sgd"}
        ```

        Args:
            optimizer: class or name of which each model gets one.
            learning_rate: its learning rate.
            kwargs: its other arguments.

        Returns:
            `{model: optimizer}`.
        """
        if optimizer is not None:
            return making.one_each(optimizer, list(self._models()), learning_rate, **kwargs)
        return member_optimizers.own_optimizers(self)

    # What users call -------------------------------------------------------------------------

    def summary(self, *args: Any, **kwargs: Any) -> None:
        """Prints Keras' summary, and a table of the models: how, when and by what each learns.

        A row holds the number of weights, how many of them are trained, the optimizer and its
        learning rate, when the model is updated, and the losses that it follows with their
        weights: schedules by class and present value, variables by value. The losses are known
        once the system has seen a batch (`setup` is enough where `compute_losses` can run on
        shapes alone).

        Args:
            args: as in `keras.Model.summary`.
            kwargs: likewise; `print_fn` gets the table too.
        """
        call = bind(super().summary, *args, **kwargs)
        super().summary(*args, **kwargs)
        (call.arguments["print_fn"] or print)(summary.text(self))

    def gradient_report(self, data: Any = None) -> GradientReport:
        """The norm of the gradient of each loss in each model, and what is amiss. Changes nothing.

        ```python
        report = gan.gradient_report(images[:64])
        print(report)
        assert not report.dead
        report["generator"]["discriminator"]  # a norm
        ```

        Args:
            data: one batch as the data set yields it, an `MLData` or another data set, whose first
                batch is taken, as for `setup`.

        Returns:
            The norms by loss and model. `dead` lists the routes by which no gradient arrives: of
            losses that a model follows and does not depend on. `unfollowed` lists those by which
            one would arrive, of losses that the model does not follow. A system that is not set
            up is set up first.
        """
        batch = data_arguments.examples(self, data)[0]
        self.setup(batch)
        return gradient_report.report(self, batch)

    def compile(
        self,
        optimizer: Any = None,
        loss: Any = None,
        loss_weights: Any = None,
        metrics: Any = None,
        weighted_metrics: Any = None,
        **kwargs: Any,
    ) -> None:
        """Configures training; `fit` does without it.

        Args:
            optimizer: Keras optimizer, class or name of which each model gets a copy, or a dict
                of these by model. By default what `configure_optimizers` returns.
            loss: Keras loss of each model that has none of its own, or a dict of losses by model.
            loss_weights: weight of all losses, or a dict of weights by loss, on top of `routing`. A
                term of a loss goes by its log (`encoder_kl`), or its own name (`kl`) where only one
                loss has it; its weight counts in place of that of its loss. Logs are unweighted.
            metrics: list of Keras metrics of each model with a given loss, or a dict by model.
            weighted_metrics: likewise, weighted by the sample weights.
            kwargs: the other arguments of `keras.Model.compile`.
        """
        self._run.given = {
            "optimizer": optimizer,
            "loss": loss,
            "loss_weights": loss_weights,
            "metrics": metrics,
            "weighted_metrics": weighted_metrics,
            "auto_scale_loss": kwargs.get("auto_scale_loss", True),
        }
        self._run.reset()
        Trainer.compile(self, optimizer=None, **kwargs)

    compile._is_default = True  # type: ignore[attr-defined]

    @property
    def optimizers(self) -> Mapping[str, Any]:
        """The Keras optimizer of each model, by name."""
        optimizer = getattr(self, "optimizer", None)
        return {} if optimizer is None else optimizer.by_model

    @property
    def metrics(self) -> list[Any]:
        """The trackers of losses and logs, the members' metrics, and those set as attributes."""
        if not hasattr(self, "_run"):
            return super().metrics
        own = _keras.own_metrics(self)
        return [*self._run.logs.metrics(), *member_metrics.metrics_of(self).values(), *own]

    def reset_metrics(self) -> None:
        """Empties the running means; called by Keras at the start of each epoch."""
        super().reset_metrics()
        self._run.logs.reset()
        self._run.shown = {}
        if self.optimizer is not None:
            self._run.batches = int(self.optimizer.iterations)

    def get_metrics_result(self) -> dict[str, Any]:
        """The running means: in a step of what it updated, else of all that hold one."""
        this = context.of(self)
        if this:
            self._flush(this)
        logs = self._run.logs.results(self._logged(this))
        if "loss" in logs and self._is_evaluated(this):
            logs["loss"] = self._run.logs.total(self._run.evaluated)
        logs = loss_first(logs)
        for name, metric in member_metrics.metrics_of(self).items():
            if this is None or name in this.measured:
                logs |= {f"{name}_{n}": value for n, value in metric.result().items()}
        return logs | {metric.name: metric.result() for metric in _keras.own_metrics(self)}

    def _is_evaluated(self, this: context.Step | None) -> bool:
        return self._run.purpose == "test_step" if this is None else not this.training

    def _logged(self, this: context.Step | None) -> Iterable[str] | None:
        """The names that a step has logged. TensorFlow wants one also where no model was due."""
        if this is None or this.touched or not this.training:
            return this.touched if this else None
        self._run.logs.gated.add("loss")
        return [name for name in ("loss",) if name in self._run.logs.trackers]

    def _epoch_logs(self, logs: dict[str, Any]) -> dict[str, Any]:
        means, shown = self.get_metrics_result(), self._run.shown | logs
        logs = loss_first({name: means.get(name, value) for name, value in shown.items()})
        if self._run.purpose != "train_step":
            return logs
        return logs | system_optimizer.learning_rates(self.optimizers) | nonfinite.skipped(self)

    def _metric_names(self) -> set[str]:
        found = member_metrics.metrics_of(self).items()
        return {f"{name}_{n}" for name, metric in found for n in metric.result()} | {
            metric.name for metric in _keras.own_metrics(self)
        }

    def make_train_function(self, force: bool = False) -> Any:
        """Compiles the training step, one for each set of models that are updated on a batch."""
        self._check_readied("train_step")
        if force or self.train_function is None:
            self.train_function = compiled_step.TrainFunction(self)
        return self.train_function

    def _retrain(self) -> None:
        configuration.retrain(self)

    def get_compile_config(self) -> Any:
        """What the system learns by, as Keras saves it: the optimizer of each model, and more."""
        if not (config := super().get_compile_config()):
            return config
        given = self._run.given | ({"optimizer": dict(self.optimizers)} if self.optimizers else {})
        config |= {
            name: constructor_arguments.serialized(self, name, v) for name, v in given.items()
        }
        return config | self._declared()

    def compile_from_config(self, config: dict[str, Any]) -> None:
        """Compiles a loaded system as the saved one was. Called by Keras."""
        super().compile_from_config(self._declare(config))

    def get_build_config(self) -> Any:
        """What the weights are made from, and what a system that others train was declared."""
        config = super().get_build_config()
        return config if self.compiled or not config else config | self._declared()

    def build(self, input_shape: Any) -> None:
        """Called by Keras after `forward`, which may have called only what is in a system."""
        members.mark_built(self)
        super().build(input_shape)

    build._is_default = True  # type: ignore[attr-defined]

    def build_from_config(self, config: dict[str, Any]) -> None:
        """Makes the weights of a loaded system. Called by Keras."""
        super().build_from_config(self._declare(config))

    def _declared(self) -> dict[str, Any]:
        """Routing and the like, where set on the system, and which members are frozen.

        What holds variables is left out: constructors make the variables, and what holds them.
        """
        own = {name: self.__dict__[name] for name in SAVED if name in self.__dict__}
        plain = {name: value for name, value in own.items() if not _holds_variables(value)}
        leaves = members.leaves(self).items()
        frozen = [name for name, leaf in leaves if not getattr(leaf, "trainable", True)]
        optimized = member_optimizers.optimized(self)
        plain |= {n: v for n, v in (("frozen", frozen), ("optimized", optimized)) if v}
        return {
            name: constructor_arguments.serialized(self, name, value)
            for name, value in plain.items()
        }

    def _declare(self, config: Mapping[str, Any]) -> dict[str, Any]:
        """Sets what `_declared` said, and returns the rest."""
        for name in SAVED:
            if name in config:
                setattr(self, name, keras.saving.deserialize_keras_object(config[name]))
        leaves = members.leaves(self)
        for name in config.get("frozen", ()):
            leaves[name].trainable = False
        self._run.optimized = dict(config.get("optimized", {}))
        declared = (*SAVED, "frozen", "optimized")
        return {name: value for name, value in config.items() if name not in declared}

    def _shuffles_anew(self) -> bool:
        return True

    # A learner of many -----------------------------------------------------------------------

    def _ensure_compiled(self) -> None:
        if not self.compiled:
            self.compile()
        if self._run.is_ready:
            configuration.retrain(self)

    def _finish_build(self) -> None:
        for member in members.leaves(self).values():
            if isinstance(member, EMA) and member.source.built and not int(member.updates):
                member.start()
        members.check(self)
        members.give_keys(self)
        if type(self).loss is not MLSystem.loss:
            raise ValueError(
                f"{type(self).__name__} overrides `loss`. The losses of a system have names: "
                "override `compute_losses(self, x, y, outputs)`, which returns {name: loss}."
            )
        configuration.configure(self)
        check_loss_weights(self)
        prepare_balance(self)

    def _models(self) -> dict[str, Any]:
        known = self._run.members or members.leaves(self)
        return {name: model for name, model in known.items() if model.trainable_weights}

    def _has_loss(self) -> bool:
        return True

    def _known_models(self) -> list[str]:
        known = self._run.members or members.leaves(self)
        return [name for name, member in known.items() if not isinstance(member, EMA)]

    def _find_losses(self, batch: Batch, outputs: Any, training: bool) -> Taken:
        taken = system_losses.find(self, batch, outputs, training)
        if context.of(self) and not self._run.logs.sealed:
            self._name_logs(taken)
        return taken

    def _name_logs(self, taken: Taken) -> None:
        """Makes the running means of all losses: one that nobody follows yet may be one day."""
        for name in taken.losses:
            self._run.logs.make(*_log_of(name, "loss"))
        for name in taken.terms:
            self._run.logs.make(*_log_of(name, "term"))

    def _rows(self, losses: Sequence[str]) -> Rows:
        return system_rows.rows(self, losses)

    def _balance(self) -> Any:
        return self.balance

    def _phase_models(self) -> list[list[str]]:
        return self._run.phases

    def _follow(self, updated: Mapping[str, Any]) -> None:
        trained = self._models()
        conditions = {id(v): c for n, c in updated.items() for v in trained[n].trainable_weights}
        copies = [m for m in (self._run.members or {}).values() if isinstance(m, EMA)]
        for copy in copies:
            weights = copy.source.trainable_weights
            if found := [conditions[id(v)] for v in weights if id(v) in conditions]:
                copy.follow(select.any_of(found))

    def _forward_state(self) -> list[Any]:
        keeps = self.nonfinite == "keep"
        return super()._forward_state() if keeps else nonfinite.forward_state(self)

    def _finite(self, gradients: Mapping[str, Any]) -> dict[str, Any]:
        return nonfinite.finite(self, gradients)

    def _update_metrics(
        self, batch: Batch, outputs: Any, updated: Mapping[str, Any] | None
    ) -> None:
        trained = self._models()
        for name, metrics in member_metrics.metrics_of(self).items():
            mine = [] if updated is None else [c for n, c in updated.items() if _is_in(n, name)]
            if updated is None or mine or not named(name, trained):
                condition = select.any_of(mine) if mine else None
                parts = (batch.y, outputs, batch.sample_weight)
                how = engine.chosen.kept, engine.chosen.changed
                with select.only(condition, metrics.variables, *how):
                    own = (member_metrics.entry(self, part, name) for part in parts)
                    member_metrics.measure(name, metrics, *own)
                if this := context.of(self):
                    this.measured.add(name)

    def _flush(self, this: context.Step) -> None:
        means, owners = this.means(), this.owners
        for name, (value, weight) in means.items():
            log = _log_of(name, "term" if name in owners else "loss")
            self._track(*log, value, weight, name in this.gated)
        top = system_rows.top(self, [name for name in means if name not in owners])
        if not this.training:
            self._run.evaluated |= dict.fromkeys(_log_of(name, "loss")[0] for name in top)
        if top:
            total = sum(means[name][0] for name in top)
            weight = context.any_weight([means[name][1] for name in top])
            self._track("loss", "the sum of the losses", total, weight, this.gated.issuperset(top))

    def _close_step(self, this: context.Step) -> None:
        super()._close_step(this)
        if this.training and self.optimizer is not None:
            self.optimizer.count_batch()

    def _state_variables(self) -> list[Any]:
        variables = [*super()._state_variables(), *weight_variables(self), *self._balancing()]
        return list({id(v): v for v in variables}.values())

    def _counted_variables(self) -> list[Any]:
        return [*super()._counted_variables(), *self._balancing()]

    def _balancing(self) -> list[Any]:
        return [] if self.balance is None else self.balance.variables

    def predict(self, x: Any = None, *args: Any, **kwargs: Any) -> Any:
        """What `forward` returns, batch by batch. See `keras.Model.predict`.

        Args:
            x: as in Keras, an `ml.MLData` (its test data) or `ml.Streams`.
            args: the other arguments of `keras.Model.predict`.
            kwargs: the other arguments of `keras.Model.predict`.
        """
        if not self.built and (isinstance(x, (dict, tuple, list)) or hasattr(x, "shape")):
            self.setup((x,))
        if not self.built and (x is None or isinstance(x, (MLData, Feed))):
            self.setup(x)
        return super().predict(x, *args, **kwargs)


def _log_of(name: str, what: str) -> tuple[str, str]:
    """The name in the logs of a loss or of one of its terms, and whose it is."""
    return name if what == "term" else f"{name}_loss", f"the {what} '{name}'"


def _is_in(model: str, member: str) -> bool:
    """Whether a model is a member, or in it."""
    return bool(followed([{model: ()}], [member]))


def _trains(routing: Any) -> bool:
    """Whether a routing holds what Keras would take for a weight of the system to train."""
    return any(getattr(leaf, "trainable", False) for leaf in keras.tree.flatten(routing))


def _holds_variables(value: Any) -> bool:
    return any(isinstance(leaf, keras.Variable) for leaf in keras.tree.flatten(value))

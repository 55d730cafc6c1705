"""MLSystem: a model made of models, which learn together."""

from collections.abc import Mapping
from contextlib import nullcontext
from dataclasses import replace
from typing import Any

import keras
from keras import ops

from mlsystem import _keras
from mlsystem._attributes import DECLARED
from mlsystem._signature import bind
from mlsystem.data.adapter import Feed
from mlsystem.data.batch import Batch
from mlsystem.data.mldata import MLData
from mlsystem.diagnostics import gradient_report, summary
from mlsystem.diagnostics.gradient_report import GradientReport
from mlsystem.fit import data_arguments
from mlsystem.fit.trainer import Trainer
from mlsystem.losses import system_losses
from mlsystem.losses.found import ForwardLosses
from mlsystem.models import declarations
from mlsystem.models.many_models import ManyModels
from mlsystem.models.model import KINDS, MLModel, taken_name
from mlsystem.optimizers import making
from mlsystem.preparation import member_optimizers
from mlsystem.routing import members, system_rows
from mlsystem.saving import constructor_arguments
from mlsystem.step import compiled_step, context
from mlsystem.step.compiled_step import SystemTrainFunction

# What `compile` of a system takes, beside the arguments of Keras.
_COMPILED = (
    *("optimizer", "loss", "loss_weights", "metrics", "weighted_metrics"),
    "auto_scale_loss",
)


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

    _mlsystem: ManyModels
    routing: Any = "sum"
    phases: Any = None
    update_every: Any = None
    update_start: Any = None
    update_end: Any = None
    update_when: Any = None
    nonfinite: str = "skip"
    balance: Any = None

    def __setattr__(self, name: str, value: Any) -> None:
        if "built" not in self.__dict__ and members.has_layer(value):
            raise RuntimeError(
                f"{type(self).__name__}.__init__ sets `{name}` before it calls "
                "`super().__init__()`. Call that first."
            )
        if name[0] == "_" or (value is True and name == "built"):  # Keras sets some before all else
            super().__setattr__(name, value)
            return
        if isinstance(value, keras.Layer) and hasattr(MLSystem, name):
            raise ValueError(taken_name(self, name))
        if isinstance(value, type) and issubclass(value, keras.Model):
            raise ValueError(
                f"`{name}` of {type(self).__name__} is the class {value.__name__}. Make a model: "
                f"`self.{name} = {value.__name__}(...)`. To keep a class, begin its name with an "
                "underscore."
            )
        learner = self._mlsystem
        if name in DECLARED and learner.call is not None and learner.call.arguments is not None:
            raise RuntimeError(
                f"`{name}` of '{self.name}' was set in the middle of `fit`. Set it between two of "
                "them. (Models may be frozen and unfrozen, and variables assigned, at any time.)"
            )
        if name not in DECLARED and _has_other(self, value) and self.built:
            raise RuntimeError(
                f"'{self.name}' has its weights already, and cannot be given another `{name}`. "
                f"Make a new {type(self).__name__} from the models that are to stay, which keep "
                "their weights, and call `setup` or `fit`. Its optimizers start from scratch."
            )
        before = getattr(self, name, None) if name in learner.attributes else None
        if isinstance(before, keras.Layer) and before is not value:
            _keras.untrack(self, before)  # or it would stay a part of the system
        with _keras.DotNotTrackScope() if name == "routing" and _trains(value) else nullcontext():
            super().__setattr__(name, value)
        if name in DECLARED and "built" in self.__dict__:
            learner.reset()
            self.train_function = self.test_function = None
        if members.holds_layer(value):
            members.give_names(name, value)
            learner.attributes[name] = None
            learner.reset()

    def __dir__(self) -> list[str]:
        # Keras saves what it finds among these names: each model by its own, and those in lists
        # and dicts by `_members`. In `layers` they would be numbered by class.
        hidden = {"layers", *self._mlsystem.containers()}
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
        return system_losses.member_losses(
            self._mlsystem, Batch(x, y, sample_weight), outputs, training
        )

    def loss(
        self, x: Any, y: Any, outputs: Any, sample_weight: Any = None, training: Any = None
    ) -> Any:
        """The sum of the losses of the system, a scalar tensor. See `compute_losses`."""
        learner = self._mlsystem
        taken = system_losses.find(learner, Batch(x, y, sample_weight), outputs, bool(training))
        learner.losses = ForwardLosses(taken=taken)
        names = system_rows.top(self, taken.losses)
        return sum((taken.losses[name] for name in names), ops.zeros(()))

    loss._is_default = True  # type: ignore[attr-defined]

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
            return making.one_each(
                optimizer, list(self._mlsystem.models()), learning_rate, **kwargs
            )
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
        batch = data_arguments.examples(self._mlsystem, data)[0]
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
        learner = self._mlsystem
        learner.given = replace(
            learner.given,
            optimizer=optimizer,
            loss=loss,
            loss_weights=loss_weights,
            metrics=metrics,
            weighted_metrics=weighted_metrics,
            auto_scale_loss=kwargs.get("auto_scale_loss", True),
        )
        learner.reset()
        Trainer.compile(self, optimizer=None, **kwargs)

    compile._is_default = True  # type: ignore[attr-defined]

    @property
    def optimizers(self) -> Mapping[str, Any]:
        """The Keras optimizer of each model, by name."""
        return self._mlsystem.optimizers

    @property
    def metrics(self) -> list[Any]:
        """The trackers of losses and logs, the members' metrics, and those set as attributes."""
        own = _keras.own_metrics(self)
        return [*self._mlsystem.logs.metrics(), *self._mlsystem.metrics().values(), *own]

    def reset_metrics(self) -> None:
        """Empties the running means; called by Keras at the start of each epoch."""
        super().reset_metrics()
        learner = self._mlsystem
        learner.logs.reset()
        learner.compiled.shown = {}
        if self.optimizer is not None:
            learner.compiled.batches = int(self.optimizer.iterations)

    def get_metrics_result(self) -> dict[str, Any]:
        """The running means: in a step of what it updated, else of all that hold one."""
        return self._mlsystem.results()

    def make_train_function(self, force: bool = False) -> Any:
        """Compiles the training step, one for each set of models that are updated on a batch."""
        compiled_step.check_rehearsed(self._mlsystem, "train_step")
        if force or self.train_function is None:
            self.train_function = SystemTrainFunction(self._mlsystem)
        return self.train_function

    def get_compile_config(self) -> Any:
        """What the system learns by, as Keras saves it: the optimizer of each model, and more."""
        if not (config := super().get_compile_config()):
            return config
        given = {name: getattr(self._mlsystem.given, name) for name in _COMPILED}
        given |= {"optimizer": dict(self.optimizers)} if self.optimizers else {}
        config |= {
            name: constructor_arguments.serialized(self, name, v) for name, v in given.items()
        }
        return config | declarations.declared(self)

    def compile_from_config(self, config: dict[str, Any]) -> None:
        """Compiles a loaded system as the saved one was. Called by Keras."""
        super().compile_from_config(declarations.declare(self, config))

    def get_build_config(self) -> Any:
        """What the weights are made from, and what a system that others train was declared."""
        config = super().get_build_config()
        return config if self.compiled or not config else config | declarations.declared(self)

    def build(self, input_shape: Any) -> None:
        """Called by Keras after `forward`, which may have called only what is in a system."""
        members.mark_built(self)
        super().build(input_shape)

    build._is_default = True  # type: ignore[attr-defined]

    def build_from_config(self, config: dict[str, Any]) -> None:
        """Makes the weights of a loaded system. Called by Keras."""
        super().build_from_config(declarations.declare(self, config))

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


def _has_other(system: Any, value: Any) -> bool:
    """Whether a value holds a layer that is no part of the system."""
    if not members.holds_layer(value):
        return False
    known = {id(layer) for layer in _keras.flat_layers(system)}
    return any(id(layer) not in known for _, layer in members.walk("", value))


def _trains(routing: Any) -> bool:
    """Whether a routing holds what Keras would take for a weight of the system to train."""
    return any(getattr(leaf, "trainable", False) for leaf in keras.tree.flatten(routing))


KINDS[MLSystem] = ManyModels

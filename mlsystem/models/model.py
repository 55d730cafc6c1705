"""MLModel: a Keras model with its own loss and its own optimizer."""

from collections.abc import Mapping
from dataclasses import replace
from typing import Any

import keras
from keras import tree

from mlsystem import _keras
from mlsystem._learner import Given, Role
from mlsystem._signature import by_name, extras
from mlsystem.data.batch import array, mapped, own_entry
from mlsystem.diagnostics import explanation
from mlsystem.diagnostics.explanation import Explanation
from mlsystem.diagnostics.memory import Memory
from mlsystem.engine import engine
from mlsystem.fit import call, data_arguments
from mlsystem.fit.trainer import Trainer
from mlsystem.models import functional, network
from mlsystem.models.model_attributes import GROUPS, KINDS, Attached, ModelAttributes, reserved_name
from mlsystem.models.model_learner import ModelLearner
from mlsystem.models.model_saving import ModelSaving
from mlsystem.optimizers.creation import make
from mlsystem.optimizers.system_optimizer import ByModel
from mlsystem.plot.picture import Picture
from mlsystem.plot.picture import system as draw_system
from mlsystem.preparation import recompilation, setup
from mlsystem.saving import constructor_arguments
from mlsystem.step import reduction, train_function
from mlsystem.step.train_function import FirstTest, TrainFunction
from mlsystem.step.train_step import TrainStep
from mlsystem.step.user_methods import adopt


@keras.saving.register_keras_serializable("mlsystem")
class MLModel(ModelAttributes, TrainStep, ModelSaving, Trainer, Attached):
    """A Keras model with its own forward pass, loss and optimizer.

    Train it alone, as below, or as a member of an `MLSystem`. Override `forward`, `loss` and
    `configure_optimizer`, or pass a network, a loss and an optimizer as arguments:

    ```python
    class Regressor(ml.MLModel):
        def __init__(self, units):
            super().__init__()
            self.dense = keras.layers.Dense(units)

        def forward(self, x, training=None):
            return self.dense(x)

        def loss(self, x, y, outputs):
            return keras.ops.mean((y - outputs) ** 2, axis=-1)  # one loss per sample

    Regressor(1).fit(x, y)
    ml.MLModel(keras.Sequential([keras.layers.Dense(1)]), loss="mse").fit(x, y)
    ```

    An `MLModel` is a `keras.Model`, and works wherever a Keras model does.
    `MLModel(inputs=..., outputs=...)`, `compile(loss=...)`, `compute_loss` and saving work as in
    Keras.

    `save` and `keras.saving.load_model` work with a subclass if Keras can serialize the arguments
    of its constructor: numbers, models, layers, optimizers, and lists and dicts of these. Such a
    class needs no `get_config` and no decorator, unless it is defined inside a function. Import its
    module before you load.

    Args:
        net: any Keras model or layer, or a network of the backend: a `torch.nn.Module` or a
            `flax.linen.Module`. Leave it out if you override `forward`.
        loss: name, `keras.losses.Loss` or function `(y_true, y_pred)`. The loss compares the
            model's own entries of `y` and of the outputs. In a dict, that is the entry under the
            model's key, if there is one.
        optimizer: name, class or Keras optimizer. Adam by default.
        metrics: list of Keras metrics, of the same entries as the loss.
        name: name of the model.
    """

    _mlsystem: ModelLearner

    def __new__(cls, *args: Any, **kwargs: Any) -> Any:
        """Create the model, and let Keras store the arguments of the constructor."""
        # Keras stores the arguments for `get_config` here, but positional ones only by name.
        if len(args) == 1 and cls.__init__ is MLModel.__init__ and "outputs" not in kwargs:
            kwargs |= {"net": args[0]}
            args = ()
        model = super().__new__(cls, *args, **kwargs)
        model._mlsystem.arguments = constructor_arguments.named(model, args, kwargs)
        return model

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        self._mlsystem.is_begun = True
        given = {name: kwargs.pop(name, None) for name in ("loss", "optimizer", "metrics")}
        is_functional = _keras.functional_init_arguments(args, kwargs)
        is_functional = is_functional and not any(isinstance(arg, keras.Layer) for arg in args)
        net = None if is_functional else network.from_arguments(self, args, kwargs)
        if net is not None:
            kwargs.setdefault("dtype", net.dtype_policy)  # it decides whether the loss is scaled
        if is_functional:
            functional.become(self, MLModel)
            _keras.Functional.__init__(self, *args, **kwargs)
        else:
            super().__init__(**kwargs)
        self._mlsystem.given = Given(**given)
        self._mlsystem.role = Role(has_name=kwargs.get("name") is not None)
        if net is not None:
            self.net = net
        if given["loss"] is not None or given["metrics"] is not None:
            keras.Model.compile(self, optimizer=None, loss=given["loss"], metrics=given["metrics"])

    def __init_subclass__(cls, registered: bool = True, **kwargs: Any) -> None:
        super().__init_subclass__(**kwargs)
        for name in GROUPS:
            if name in vars(cls):
                raise reserved_name(name, cls.__name__)
        adopt(cls)
        if registered and "<locals>" not in cls.__qualname__:  # local classes may share a name
            _keras.register(cls)

    # Methods to override ---------------------------------------------------------------------

    @by_name
    def call(self, inputs: Any, *more: Any, training: Any = None, **kwargs: Any) -> Any:
        """Run the forward pass of the model. It is the same function as `forward`."""
        net = getattr(self, "net", None)
        if isinstance(self, _keras.Functional):
            return _keras.Functional.call(self, inputs, training=training, **kwargs)
        if net is None:
            raise NotImplementedError(
                f"{type(self).__name__} does not say how to compute: give it a `net`, "
                "or override `forward(self, inputs, training=None)`."
            )
        if training is not None:
            kwargs |= extras(net.call, training=training)
        return net(inputs, *more, **kwargs)

    forward = call

    def loss(
        self, x: Any, y: Any, outputs: Any, sample_weight: Any = None, training: Any = None
    ) -> Any:
        """Compute the loss of the model. Override it with as many of the arguments as you need.

        Args:
            x: the inputs in the batch.
            y: the targets in the batch. None if there are none.
            outputs: the result of the system's `forward`, or of the model's if it is alone.
            sample_weight: the weight of each sample. None if there are none.
            training: whether this is a training step.

        Returns:
            A scalar, a vector of one loss per sample, or a dict of named terms of these two kinds.
            The sum of the terms is the loss. A vector is averaged. It is first weighted by the
            sample weights, unless the method takes `sample_weight`.
        """
        compiled = _keras.compile_loss(self)
        if self._mlsystem.overrides("compute_loss"):
            own = (own_entry(part, self.key) for part in (y, outputs, sample_weight))
            return _keras.compute_loss(self, x, *own, training=training)
        if compiled is None:
            raise NotImplementedError(
                f"'{self.key}' has no loss. Override `loss`, or give `loss=`."
            )
        return reduction.compiled(compiled, self.key, y, outputs, sample_weight)

    def configure_optimizer(self) -> Any:
        """Return the optimizer: the constructor's argument, else Adam. Override it for another."""
        return make(self._mlsystem.given.optimizer or "adam", self.key)

    loss._is_default = loss  # type: ignore[attr-defined]
    configure_optimizer._is_default = configure_optimizer  # type: ignore[attr-defined]

    def compile(
        self,
        optimizer: Any = "auto",
        loss: Any = None,
        loss_weights: Any = None,
        metrics: Any = None,
        **kwargs: Any,
    ) -> None:
        """Configure training, as in Keras. Arguments left out come from the constructor.

        Args:
            optimizer: as in Keras. "auto": the model's own optimizer, else Keras' default.
            loss: as in Keras.
            loss_weights: as in Keras. For a `loss` method, numbers by term: `{"kl": 0.1}`.
            metrics: as in Keras.
            kwargs: the other arguments of `keras.Model.compile`.
        """
        learner = self._mlsystem
        has_method = learner.overrides("loss")
        if loss is not None and has_method:
            raise ValueError(
                f"{type(self).__name__} has a `loss` method, and compile got loss={loss!r}. "
                "Leave one of them out."
            )
        given = learner.given
        if is_auto := isinstance(optimizer, str) and optimizer == "auto":
            own = given.optimizer or learner.overrides("configure_optimizer")
            optimizer = self.configure_optimizer() if own else "rmsprop"
        if has_method:
            _check_term_weights(self.key, loss_weights)
            learner.given = replace(given, loss_weights=loss_weights)
        loss = given.loss if loss is None else loss
        metrics = given.metrics if metrics is None else metrics
        learner.reset()
        super().compile(optimizer, loss, loss_weights, metrics, **kwargs)
        if is_auto:
            learner.role = replace(learner.role, own=None)

    # A subclass with its own `compile` handles the arguments that Keras did not save.
    compile._is_default = compile  # type: ignore[attr-defined]

    def setup(self, batch: Any = None) -> "MLModel":
        """Build weights and optimizers from one batch, and compile. Return the model.

        Args:
            batch: one batch as the data set yields it (its shapes count, and for a picture
                the range of its classes), a data set, or an `ml.MLData`. By default the result of
                the model's method `data`.
        """
        learner = self._mlsystem
        if learner.call is None:
            recompilation.see(learner)
        learner.ensure_compiled()
        setup.build(learner, *data_arguments.examples(learner, batch))
        return self

    def picture(self, report: Any = None) -> Picture:
        """Draw the model, or the system: models, losses, and which model follows which loss.

        A notebook shows the picture. Print it for a picture in text, or save it to a file:

        ```python
        gan.setup(images[:64])
        gan.picture()
        gan.picture(report=gan.gradient_report(images[:64])).save("gan.svg")  # or .png, .md, .txt
        ```

        It runs `forward` a few times on made-up data of the shapes given to `setup`, with whole
        numbers (classes) in the range that they had there, to find which model feeds which.
        Weights, seeds and counters do not change. Plain Python attributes that `forward` sets stay
        as the last run left them. With several `phases`, these runs are of phase 0: what `forward`
        does in a later phase only is not drawn.

        Args:
            report: the result of `gradient_report(data)`. Then the width of an arrow is the norm of
                the gradient, and a red cross marks a route on which no gradient arrives.

        Raises:
            TypeError: the report is not one.
            ValueError: the report is empty, or the model is not set up. Call `fit` or
                `setup(data)` first.
        """
        return draw_system(self, report)

    def explain(self) -> Explanation:
        """Say in a few lines what one batch does. Print the result.

        It lists the forward pass, the losses, which model follows which loss, the optimizers and
        when they update, and how the step is compiled. As `picture` does, it runs `forward` a few
        times, of phase 0: weights, seeds and counters do not change, plain Python attributes may.

        ```python
        print(gan.setup(images[:64]).explain())
        ```

        Raises:
            ValueError: the model is not set up. Call `fit` or `setup(data)` first.
        """
        return explanation.explain(self)

    def memory(self, data: Any = None) -> Memory:
        """Return the bytes that training takes, before it starts. Print the result for a table.

        The table has the weights, gradients, optimizer and averages of each model by dtype, and the
        changes that would save at least a hundredth of that: int8, LoRA, bfloat16, accumulation,
        remat, sharding. On JAX, the step is compiled, and not run, for the bytes that it needs.

        ```python
        memory = gan.memory(images[:64])
        print(memory)
        memory["generator"].optimizer["float32"], memory.total, memory.step
        ```

        Args:
            data: one batch as the data set yields it, or an `MLData` or another data set, whose
                first batch is used, as in `setup`.

        Returns:
            The bytes by model. The system is set up first, if it is not yet.
        """
        learner = self._mlsystem
        batch = mapped(array, data_arguments.examples(learner, data)[0])
        self.setup(batch)
        return Memory(learner, batch, call.step_memory(learner, batch))

    @property
    def optimizers(self) -> Mapping[str, Any]:
        """The optimizer of the model, by its key."""
        return ByModel({} if self.optimizer is None else {self.key: self.optimizer})

    def compute_loss(
        self,
        x: Any = None,
        y: Any = None,
        y_pred: Any = None,
        sample_weight: Any = None,
        training: bool = True,
    ) -> Any:
        """Compute the loss with the regularizers, as in Keras, unless `loss` is overridden."""
        learner = self._mlsystem
        if learner.overrides("loss"):
            return learner.compute_loss(x, y, y_pred, sample_weight, training)
        if (compiled := _keras.compile_loss(self)) is None:
            return super().compute_loss(x, y, y_pred, sample_weight)
        reduction.check_targets(self.key, y)
        with reduction.named_loss(compiled, self.key, y, y_pred):
            return super().compute_loss(x, y, y_pred, sample_weight)

    compute_loss._is_default = compute_loss  # type: ignore[attr-defined]

    def get_metrics_result(self) -> dict[str, Any]:
        """Return the running means: Keras' first, then the values logged under other names."""
        learner = self._mlsystem
        this = learner.step
        if this and learner.condition is None:
            learner.to_logs(this)
        own = learner.logs.results(this.touched if this else None)
        logged = learner.logs.trackers  # some of them are logged by `test_step` only
        of_keras = {n: v for n, v in super().get_metrics_result().items() if n not in logged}
        return of_keras | own

    @property
    def metrics(self) -> list[Any]:
        """Keras' metrics of the model, and the trackers of the logs."""
        return [*super().metrics, *self._mlsystem.logs.metrics()]

    def make_train_function(self, force: bool = False) -> Any:
        """Create the function that compiles the training step. Called by `fit`."""
        train_function.check_rehearsed(self._mlsystem, "train_step")
        if force or self.train_function is None:
            self.train_function = TrainFunction(self._mlsystem)
        return self.train_function

    def make_test_function(self, force: bool = False) -> Any:
        """Create the compiled step of `evaluate`."""
        train_function.check_rehearsed(self._mlsystem, "test_step")
        if force or self.test_function is None:
            self.test_function = FirstTest(self._mlsystem, engine.test_function(self))
        return self.test_function


def _check_term_weights(key: str, loss_weights: Any) -> None:
    if not all(isinstance(w, (int, float)) for w in tree.flatten(loss_weights or 1)):
        raise ValueError(
            f"compile of '{key}' got loss_weights={loss_weights!r}. Give a number for "
            "each term. Variables and schedules are for the losses of an MLSystem."
        )


KINDS[MLModel] = ModelLearner

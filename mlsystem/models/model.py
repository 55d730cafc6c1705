"""MLModel: a Keras model with its own loss and its own optimizer."""

from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import keras
from keras import tree

from mlsystem import _attribute_names, _keras
from mlsystem._learner import Given, Role, SystemBase
from mlsystem._signature import by_name, extras
from mlsystem.data.batch import own_entry
from mlsystem.diagnostics import explanation
from mlsystem.diagnostics.explanation import Explanation
from mlsystem.engine import engine
from mlsystem.fit import data_arguments
from mlsystem.fit.trainer import Trainer
from mlsystem.losses import reduction
from mlsystem.losses.loss_values import ForwardLosses
from mlsystem.metrics.running_means import Logs
from mlsystem.models import functional
from mlsystem.models.model_learner import ModelLearner
from mlsystem.optimizers.creation import make
from mlsystem.plot.picture import Picture
from mlsystem.plot.picture import system as draw_system
from mlsystem.preparation import lightning_hints, setup
from mlsystem.routing import members
from mlsystem.saving import checksum, constructor_arguments, weights_file
from mlsystem.step import train_function
from mlsystem.step.train_function import TrainFunction
from mlsystem.step.train_step import TrainStep
from mlsystem.step.user_methods import adopt

# The names that the library sets on a model. The last two are groups in files.
_GROUPS = ("_mlsystem", "_seeds", "_members")
# Other names that Keras sets in the constructor, `compile` or `fit`. A layer there would be lost.
_SET_BY_KERAS = _attribute_names.OF_KERAS | {
    *("optimizer", "loss", "autocast", "supports_jit", "name", "activity_regularizer"),
    *("call_signature_parameters", "unrolled_steps_per_execution"),
}


# The learner of each public class, and of the classes derived from it.
KINDS: dict[type, type[ModelLearner]] = {}


class _Attached:
    """The base class that attaches a learner to a model, unseen by Keras.

    It does so before Keras sets anything on the model. It is the last base class, so that its
    `__new__` is called first.
    """

    def __new__(cls, *args: Any, **kwargs: Any) -> Any:
        model = super().__new__(cls)
        _attach(model)
        return model


def _attach(model: Any) -> Any:
    """Give a model its learner and its groups in files, unseen by Keras."""
    kind = next(KINDS[base] for base in type(model).__mro__ if base in KINDS)
    learner = kind(model, Logs(), ForwardLosses())
    for name, value in {"_mlsystem": learner, **learner.groups}.items():
        object.__setattr__(model, name, value)
    return learner


@keras.saving.register_keras_serializable("mlsystem")
class MLModel(TrainStep, Trainer, _Attached):
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
        given = {name: kwargs.pop(name, None) for name in ("loss", "optimizer", "metrics")}
        is_functional = _keras.functional_init_arguments(args, kwargs)
        is_functional = is_functional and not any(isinstance(arg, keras.Layer) for arg in args)
        net = None if is_functional else _net(self, args, kwargs)
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
        for name in _GROUPS:
            if name in vars(cls):
                raise _reserved(name, cls.__name__)
        adopt(cls)
        if registered and "<locals>" not in cls.__qualname__:  # local classes may share a name
            _keras.register(cls)

    def __setattr__(self, name: str, value: Any) -> None:
        if name == "_jax_state":
            # Keras' jax trainer stores its state here at each batch. The state holds no variables
            # to track, and a search for them takes as long as a small step.
            object.__setattr__(self, name, value)
            return
        is_private = name[0] == "_" and name not in _GROUPS
        if is_private or (value is True and name == "built"):  # as Keras does in calls
            super().__setattr__(name, value)
            return
        if name in _SET_BY_KERAS and members.has_layer(value):
            raise ValueError(taken_name(self, name))
        _check_name(self, name, value)
        if name in _GROUPS:
            raise _reserved(name, type(self).__name__)
        if name == "key" and "built" in self.__dict__:
            raise AttributeError(
                f"`key` of '{self.name}' is the name that its system gives it. "
                "Choose another name for an attribute of your own."
            )
        if _attribute_names.is_number(name, value) and getattr(self, name, None) != value:
            self._mlsystem.compiled.changes += 1  # a captured step holds the old value
        # Keras stores the argument of `compile(loss=)` as `loss`, but that is our method.
        if name != "loss":
            super().__setattr__(name, value)

    def __getattr__(self, name: str) -> Any:
        found = getattr(super(), "__getattr__", self.__getattribute__)  # the method of torch
        try:
            return found(name)
        except AttributeError:
            if name == "_mlsystem":  # a `__new__` that ends before ours
                return _attach(self)
            text = lightning_hints.missing(self, name)
            if "built" not in self.__dict__:
                text = f"{type(self).__name__}.__init__ does not call `super().__init__()`."
            if text:
                raise AttributeError(text) from None
            raise

    @property
    def key(self) -> str:
        """The name of the model in the system that trains it (`critics/0`), else its own name."""
        return self._mlsystem.role.key or self.name

    @property
    def optimizer(self) -> Any:
        """The optimizer that trains the model. In a system, it is `system.optimizers[key]`.

        A member that you `compile` or train alone has its own optimizer, until you use the system
        again. As in Keras, a model that is neither compiled nor trained has no such attribute.
        """
        of_system = self._mlsystem.role.optimizer
        if of_system is not None:
            return of_system
        if "optimizer" not in self.__dict__:
            raise AttributeError(f"'{type(self).__name__}' has no optimizer: it is not compiled.")
        return self.__dict__["optimizer"]

    @optimizer.setter
    def optimizer(self, value: Any) -> None:
        self.__dict__["optimizer"] = value
        learner = self._mlsystem
        learner.role = replace(learner.role, optimizer=None)

    def __dir__(self) -> list[str]:
        # Keras saves the attributes among these names. The system has saved this optimizer.
        of_system = self._mlsystem.role.optimizer is not None
        hidden = {"optimizer", "optimizers"} if of_system else ()
        return [name for name in super().__dir__() if name not in hidden]

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
        if optimizer == "auto":
            own = given.optimizer or learner.overrides("configure_optimizer")
            optimizer = self.configure_optimizer() if own else "rmsprop"
        if has_method:
            _check_term_weights(self.key, loss_weights)
            learner.given = replace(given, loss_weights=loss_weights)
        loss = given.loss if loss is None else loss
        metrics = given.metrics if metrics is None else metrics
        learner.reset()
        super().compile(optimizer, loss, loss_weights, metrics, **kwargs)

    # A subclass with its own `compile` handles the arguments that Keras did not save.
    compile._is_default = compile  # type: ignore[attr-defined]

    def get_config(self) -> dict[str, Any]:
        """Return the configuration: the constructor's arguments, if Keras can save them."""
        of_keras = not getattr(type(self).get_config, "_is_default", False)
        if of_keras or isinstance(self, _keras.Functional):
            return super().get_config()
        return constructor_arguments.config(self)

    # This does not count as an own `get_config` for Keras: subclasses still need theirs.
    get_config._is_default = True  # type: ignore[attr-defined]

    @classmethod
    def from_config(cls, config: dict[str, Any], custom_objects: Any = None) -> Any:
        """Create a model from its configuration."""
        # Keras uses the registered class, even if `custom_objects` names another class.
        other = keras.saving.get_registered_object(cls.__name__, custom_objects)
        is_ours = cls.from_config.__func__ is MLModel.from_config.__func__  # type: ignore[attr-defined]
        if isinstance(other, type) and other is not cls and is_ours:
            return other.from_config(config, custom_objects)  # type: ignore[attr-defined]
        if getattr(cls.get_config, "_is_default", False) and "input_layers" not in config:
            config = constructor_arguments.restored(config, custom_objects)
        return super().from_config(config, custom_objects)

    def save(self, filepath: Any, *args: Any, **kwargs: Any) -> None:
        """Save the model with its optimizer and random seeds. See `keras.Model.save`.

        Load the file with `keras.saving.load_model`, which returns the compiled model. You can
        also read its weights with `load_weights`.

        Args:
            filepath: path of the file, ending in `.keras`.
            args: as in Keras.
            kwargs: as in Keras.

        Raises:
            NotImplementedError: Keras cannot serialize an argument of the constructor. No file is
                written.
        """
        keras.saving.serialize_keras_object(self)  # fail early: Keras empties the file first
        super().save(filepath, *args, **kwargs)

    def save_weights(self, filepath: Any, *args: Any, **kwargs: Any) -> None:
        """Save weights, optimizers and random seeds. See `keras.Model.save_weights`.

        The file ends with a checksum. `load_weights` verifies it, and Keras ignores it.

        Args:
            filepath: path of the file, ending in `.weights.h5`.
            args: as in Keras.
            kwargs: as in Keras.
        """
        super().save_weights(filepath, *args, **kwargs)
        if str(filepath).endswith(".weights.h5") and Path(filepath).is_file():
            checksum.add(Path(filepath))

    def load_own_variables(self, store: Any) -> None:
        """Load the variables from one group of a file. Called by Keras."""
        weights_file.check_archive(store)
        super().load_own_variables(store)

    def load_weights(self, filepath: Any, skip_mismatch: bool = False, **kwargs: Any) -> None:
        """Load a file of `save_weights` or `save`: weights, optimizers and random seeds.

        The model must have its weights. Call `setup` to create them. A file that is damaged or does
        not fit changes nothing. If the file lacks the state of the model's optimizer, the weights
        are loaded and the optimizer starts from scratch, with a warning. In a system, each model's
        optimizer must be in the file.

        Args:
            filepath: a `.weights.h5` or `.keras` file. Keras loads other files.
            skip_mismatch: whether to skip each layer, or each model's optimizer, that does not fit.
                A warning lists them.
            kwargs: as in Keras.

        Raises:
            ValueError: the file cannot be read, has changed since it was written, or does not fit.
                The message lists the differences.
        """
        if kwargs or not str(filepath).endswith((".weights.h5", ".keras")):
            super().load_weights(filepath, skip_mismatch=skip_mismatch, **kwargs)
            return
        if not self.built:
            raise ValueError(
                f"'{self.name}' has no weights to load into yet. Call setup(batch) first."
            )
        weights_file.load_weights(self, filepath, skip_mismatch)

    def get_build_config(self) -> Any:
        """Return the shapes of the batch that built the model, else Keras' own config."""
        symbols = self._mlsystem.symbols
        if symbols is None or isinstance(self, _keras.Functional):
            return super().get_build_config()
        return {"batch": keras.saving.serialize_keras_object(symbols)}

    def build_from_config(self, config: dict[str, Any]) -> None:
        """Create the weights of a loaded model. Called by Keras."""
        if "batch" in (config or {}):
            setup.rebuild(self._mlsystem, keras.saving.deserialize_keras_object(config["batch"]))
        else:
            super().build_from_config(config)

    def compile_from_config(self, config: dict[str, Any]) -> None:
        """Compile a copy or a loaded model like the original. Called by Keras.

        As in Keras, a model with its own `compile` is not compiled, and a warning says so.
        """
        if self._mlsystem.overrides("compile"):
            super().compile_from_config(config)
            return
        self.compile(**keras.saving.deserialize_keras_object(config))
        if self.built:
            self._mlsystem.finish_build()

    def setup(self, batch: Any = None) -> "MLModel":
        """Build weights and optimizers from one batch, and compile. Return the model.

        Args:
            batch: one batch as the data set yields it (only its shapes matter), a data set, or an
                `ml.MLData`. By default the result of the model's method `data`.
        """
        learner = self._mlsystem
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

        It runs `forward` a few times on made-up data of the known shapes, to find which model feeds
        which. Weights, seeds and counters do not change.

        Args:
            report: the result of `gradient_report(data)`. Then the width of an arrow is the norm of
                the gradient, and a red cross marks a route on which no gradient arrives.

        Raises:
            ValueError: the model is not set up. Call `setup(data)` first.
        """
        return draw_system(self, report)

    def explain(self) -> Explanation:
        """Say in a few lines what one batch does. Print the result.

        It lists the forward pass, the losses, which model follows which loss, the optimizers and
        when they update, and how the step is compiled. Nothing changes, as with `picture`.

        ```python
        print(gan.setup(images[:64]).explain())
        ```

        Raises:
            ValueError: the model is not set up. Call `setup(data)` first.
        """
        return explanation.explain(self)

    @property
    def optimizers(self) -> Mapping[str, Any]:
        """The optimizer of the model, by its key."""
        return {} if self.optimizer is None else {self.key: self.optimizer}

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
        if type(self).loss is not MLModel.loss:
            return learner.compute_loss(x, y, y_pred, sample_weight, training)
        if _keras.compile_loss(self) is not None:
            reduction.check_targets(self.key, y)
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
            self.test_function = engine.test_function(self)
        return self.test_function


def _reserved(name: str, owner: str) -> AttributeError:
    return AttributeError(
        f"`{name}` of {owner} is a name that mlsystem uses itself. Choose another name."
    )


def _check_term_weights(key: str, loss_weights: Any) -> None:
    if not all(isinstance(w, (int, float)) for w in tree.flatten(loss_weights or 1)):
        raise ValueError(
            f"compile of '{key}' got loss_weights={loss_weights!r}. Give a number for "
            "each term. Variables and schedules are for the losses of an MLSystem."
        )


KINDS[MLModel] = ModelLearner
_INSTEAD = {
    "loss": 'Give it to the constructor, as in `super().__init__(loss="mse")`, or define a method '
    "`loss(self, x, y, outputs)`.",
    "optimizer": 'Give it to the constructor, as in `super().__init__(optimizer="adam")`, or '
    "define a method `configure_optimizer(self)` that returns it.",
}


def _check_name(model: Any, name: str, value: Any) -> None:
    """Raise an error for a value that would replace a method, or that belongs in a constructor."""
    if name == "loss":
        is_wrong = value is not None and value is not _keras.given_loss(model)
    elif name == "optimizer":
        is_wrong = isinstance(value, (str, type))
    else:
        owner = getattr(type(model), name, None)
        is_wrong = not callable(value) and name != "data" and _is_ours(owner)
    if is_wrong:
        instead = _INSTEAD.get(name, "Choose another name for an attribute of your own.")
        raise AttributeError(
            f"`{name}` of '{getattr(model, 'name', type(model).__name__)}' cannot be set to "
            f"{value!r}: it means something to a model already. {instead}"
        )


def _is_ours(method: Any) -> bool:
    module = getattr(method, "__module__", None) or ""
    return callable(method) and module.partition(".")[0] == "mlsystem"


def taken_name(model: Any, name: str) -> str:
    """Return the error for a layer set under a name that Keras or this library uses."""
    return (
        f"A member of {type(model).__name__} cannot be called '{name}', which means "
        "something to a model already. Choose another name."
    )


def _net(model: Any, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
    """Remove the network from the arguments of the constructor. Return it as a layer."""
    if len(args) > 1:
        raise TypeError(
            f"{type(model).__name__} takes one network; found {len(args)} positional arguments. "
            "Join networks in a keras.Sequential, or set them as attributes of a subclass."
        )
    given = args[0] if args else kwargs.pop("net", None)
    net = None if given is None else engine.as_layer(given)
    if given is None or isinstance(net, keras.Layer):
        if net is not None and isinstance(model._mlsystem, SystemBase):
            raise TypeError(
                f"{type(model).__name__} got a network. A system takes none: set its models as "
                "attributes in the constructor of a subclass."
            )
        return net
    raise TypeError(_no_net(model, given))


def _no_net(model: Any, given: Any) -> str:
    """Return the error for a constructor argument that is not a network."""
    cls = type(model).__name__
    if isinstance(given, str):
        fix = f" Give a name as `name={given!r}`, and the network first."
    elif isinstance(given, type):
        fix = f" That is a class. Give an instance: {given.__name__}(...)."
    elif isinstance(given, (list, tuple)):
        fix = " That is a list. Wrap the layers: keras.Sequential([...])."
    else:
        fix = " A function belongs in `forward` of a subclass." if callable(given) else ""
    return f"{cls} got {given!r} as its network. Give a Keras model or layer.{fix}"

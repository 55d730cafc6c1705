"""`ModelAttributes`: what the library sets on a model, and what a user may set.

`Attached` gives each model its learner, `model._mlsystem`.
"""

from dataclasses import replace
from typing import Any

import keras

from mlsystem import _attribute_names, _keras
from mlsystem.models.model_learner import ModelLearner
from mlsystem.preparation import lightning_hints
from mlsystem.routing import members
from mlsystem.step.loss_values import ForwardLosses
from mlsystem.step.running_means import Logs

# The names that the library sets on a model. The last two are groups in files.
GROUPS = ("_mlsystem", "_seeds", "_members")
# Names of private methods of Keras, and other names that it sets in the constructor, `compile` or
# `fit`. A layer there would break the model, or would be lost.
_TAKEN = _attribute_names.OF_KERAS | {
    *(name for name in dir(keras.Model) if name[0] == "_" and callable(getattr(keras.Model, name))),
    *("optimizer", "loss", "autocast", "supports_jit", "name", "activity_regularizer"),
    *("call_signature_parameters", "unrolled_steps_per_execution"),
}
# The learner of each public class, and of the classes derived from it.
KINDS: dict[type, type[ModelLearner]] = {}


class Attached:
    """The base class that attaches a learner to a model, unseen by Keras.

    It does so before Keras sets anything on the model. It is the last base class, so that its
    `__new__` is called first.
    """

    def __new__(cls, *args: Any, **kwargs: Any) -> Any:
        """Create the model with its learner. Keras takes the arguments."""
        model = super().__new__(cls)
        attach(model)
        return model


def public_class(model: Any) -> type:
    """Return the class of this library from which the class of a model is derived."""
    return next(base for base in type(model).__mro__ if base in KINDS)


def attach(model: Any) -> Any:
    """Give a model its learner and its groups in files, unseen by Keras."""
    learner = KINDS[public_class(model)](model, Logs(), ForwardLosses())
    for name, value in {"_mlsystem": learner, **learner.groups}.items():
        object.__setattr__(model, name, value)
    return learner


class ModelAttributes(_keras.Hooks):
    """The attributes of a model. `MLModel` subclasses it. Users do not."""

    _mlsystem: ModelLearner

    def __setattr__(self, name: str, value: Any) -> None:
        if name == "_jax_state":
            # Keras' jax trainer stores its state here at each batch. The state holds no variables
            # to track, and a search for them takes as long as a small step.
            object.__setattr__(self, name, value)
            return
        is_built = value is True and name == "built"  # as Keras does in calls
        if not is_built and name in _TAKEN and members.has_layer(value):
            raise ValueError(taken_name(self, name))
        if is_built or (name[0] == "_" and name not in GROUPS):
            super().__setattr__(name, value)
            return
        _check_name(self, name, value)
        if name in GROUPS:
            raise reserved_name(name, type(self).__name__)
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
                return attach(self)
            text = lightning_hints.missing(self, name)
            if not self._mlsystem.is_begun and "built" not in self.__dict__:
                cls = type(self).__name__
                text = (
                    f"{cls} has no `{name}` yet: `super().__init__()` has not run. "
                    f"Call it first in `{cls}.__init__`."
                )
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
        again. The system does not use an optimizer that you give to a member later, and warns. Give
        it to the system, as in `system.compile(optimizer={"generator": "sgd"})`.
        As in Keras, a model that is neither compiled nor trained has no such attribute.
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
        learner.role = replace(learner.role, optimizer=None, own=value)

    def __dir__(self) -> list[str]:
        # Keras saves the attributes among these names. The system has saved this optimizer.
        of_system = self._mlsystem.role.optimizer is not None
        hidden = {"optimizer", "optimizers"} if of_system else ()
        return [name for name in super().__dir__() if name not in hidden]


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


def reserved_name(name: str, owner: str) -> AttributeError:
    """Return the error for a name that the library uses itself."""
    return AttributeError(
        f"`{name}` of {owner} is a name that mlsystem uses itself. Choose another name."
    )

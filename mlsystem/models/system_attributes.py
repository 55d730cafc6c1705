"""`SystemAttributes`: what may be set on a system, and when. Models become its members."""

from contextlib import nullcontext
from typing import Any

import keras

from mlsystem import _keras
from mlsystem._attribute_names import DECLARED
from mlsystem.models.model_attributes import public_class, taken_name
from mlsystem.models.system_learner import SystemLearner
from mlsystem.routing import members


class SystemAttributes(_keras.Hooks):
    """The attributes of a system. `MLSystem` subclasses it. Users do not."""

    _mlsystem: SystemLearner
    train_function: Any
    test_function: Any

    def __setattr__(self, name: str, value: Any) -> None:
        if "built" not in self.__dict__ and members.has_layer(value):
            raise RuntimeError(
                f"{type(self).__name__}.__init__ sets `{name}` before it calls "
                "`super().__init__()`. Call that first."
            )
        if name[0] == "_" or (value is True and name == "built"):  # Keras sets some of them first
            super().__setattr__(name, value)
            return
        if isinstance(value, keras.Layer) and hasattr(public_class(self), name):
            raise ValueError(taken_name(self, name))
        if isinstance(value, type) and issubclass(value, keras.Model):
            raise ValueError(
                f"`{name}` of {type(self).__name__} is the class {value.__name__}. Make a model: "
                f"`self.{name} = {value.__name__}(...)`. To keep a class, begin its name with an "
                "underscore."
            )
        learner = self._mlsystem
        if name in DECLARED and learner.is_in_fit():
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
        # Keras saves the attributes among these names: each model by its own name, and models in
        # lists and dicts by `_members`. In `layers` they would be numbered by class.
        hidden = {"layers", *self._mlsystem.containers()}
        return [name for name in super().__dir__() if name not in hidden]


def _has_other(system: Any, value: Any) -> bool:
    """Return whether a value holds a layer that is not part of the system."""
    if not members.holds_layer(value):
        return False
    known = {id(layer) for layer in _keras.flat_layers(system)}
    return any(id(layer) not in known for _, layer in members.walk("", value))


def _trains(routing: Any) -> bool:
    """Return whether a routing holds a variable that Keras would add to the trainable weights."""
    return any(getattr(leaf, "trainable", False) for leaf in keras.tree.flatten(routing))

"""Functional models: `MLModel(inputs=..., outputs=...)`.

To make a subclass of `keras.Model` functional, Keras rewrites the bases of its class and of the
classes above it. This affects the whole process. Here, only the one instance gets a new class.
"""

from typing import Any

from mlsystem import _keras

_classes: dict[type, type] = {}


def become(model: Any, base: Any) -> None:
    """Make a model of a subclass of `base` an instance of Keras' `Functional` too."""
    cls = type(model)
    if not issubclass(cls, _keras.Functional):
        object.__setattr__(model, "__class__", _functional(cls, base))


def _functional(cls: Any, base: Any) -> type:
    if cls not in _classes:
        methods = {"call": _keras.Functional.call} if cls.call is base.call else {}
        names = {"__module__": cls.__module__, "__qualname__": cls.__qualname__}
        _classes[cls] = type(
            cls.__name__, (cls, _keras.Functional), names | methods, registered=False
        )
        _keras.register_as(_classes[cls], cls)
    return _classes[cls]

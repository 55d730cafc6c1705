"""The arguments of a model's constructor, remembered so that a subclass needs no `get_config`.

Keras remembers numbers and strings. Here arguments may also be models, layers, optimizers and all
other objects that Keras can serialize.
"""

import inspect
from collections.abc import Mapping
from typing import Any

import keras

from mlsystem import _keras


class CannotSave(NotImplementedError):
    """The error for a model that cannot be saved, with the class and the argument."""


def named(model: Any, args: tuple[Any, ...], kwargs: Mapping[str, Any]) -> dict[str, Any] | None:
    """Return the arguments of a constructor by name, or None if some have no names."""
    signature = inspect.signature(type(model).__init__)
    try:
        bound = signature.bind(model, *args, **kwargs).arguments
    except TypeError:
        return None  # the constructor raises the error
    kinds = {p.kind: name for name, p in signature.parameters.items()}
    if bound.pop(kinds.get(inspect.Parameter.VAR_POSITIONAL, ""), ()):
        return None
    given = dict(list(bound.items())[1:])
    given |= given.pop(kinds.get(inspect.Parameter.VAR_KEYWORD, ""), {})
    return given


def config(model: Any) -> dict[str, Any]:
    """Return the arguments as Keras saves them, with the arguments of every Keras layer."""
    given = model._mlsystem.arguments
    if given is None:
        raise CannotSave(
            f"'{model.name}' cannot be saved: {type(model).__name__} was given arguments by "
            "*args, which have no names. Name them, or override `get_config` and `from_config`."
        )
    dtype = keras.saving.serialize_keras_object(model.dtype_policy)
    basic = {"name": model.name, "trainable": model.trainable, "dtype": dtype}
    parameters = inspect.signature(type(model).__init__).parameters
    takes_all = any(p.kind is inspect.Parameter.VAR_KEYWORD for p in parameters.values())
    taken = {n: v for n, v in basic.items() if takes_all or n in parameters}
    return taken | {n: serialized(model, n, v) for n, v in given.items() if n not in taken}


def serialized(model: Any, name: str, value: Any) -> Any:
    """Return one argument as Keras saves it."""
    try:
        if any(isinstance(leaf, keras.Variable) for leaf in keras.tree.flatten(value)):
            raise TypeError("A variable would be loaded as the number in it.")
        return _keras.portable(keras.saving.serialize_keras_object(value))
    except CannotSave:  # from a model inside this model
        raise
    except Exception as error:
        raise CannotSave(
            f"'{model.name}' cannot be saved: Keras cannot serialize the argument {name} of "
            f"{type(model).__name__}, {value!r}. Override `get_config` and `from_config`, or save "
            "its weights alone with `save_weights`."
        ) from error


def restored(config: Mapping[str, Any], custom_objects: Any) -> dict[str, Any]:
    """Return the arguments from the configuration of a model."""
    try:
        return {
            name: keras.saving.deserialize_keras_object(value, custom_objects=custom_objects)
            for name, value in config.items()
        }
    except TypeError as error:
        what, found, _ = str(error).partition(" Full object config: ")
        if not found:
            raise
        name = what.removeprefix("Could not locate ").partition(". Make sure")[0]
        # Keras would add the whole file to a TypeError.
        raise ValueError(
            f"The file holds an object of {name}, which is not known here. Import the module "
            "that defines it before you load the file. If it is no MLModel, register it with "
            "keras.saving.register_keras_serializable."
        ) from None

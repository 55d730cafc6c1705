"""The network among the arguments of a model's constructor."""

from typing import Any

import keras

from mlsystem._learner import SystemBase
from mlsystem.engine import engine


def from_arguments(model: Any, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
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

"""The models of a system: layers set as attributes, in lists, in dicts and in nested systems."""

from collections.abc import Iterator, Mapping
from typing import Any

import keras


def walk(path: str, value: Any) -> Iterator[tuple[str, Any]]:
    """The layers in one attribute with their paths, lists and dicts spelled out.

    >>> [path for path, _ in walk("critics", [keras.layers.Dense(1), keras.layers.Dense(1)])]
    ['critics/0', 'critics/1']
    """
    if isinstance(value, keras.Layer):
        yield path, value
    elif isinstance(value, Mapping):
        for key, item in value.items():
            yield from walk(f"{path}/{key}", item)
    elif isinstance(value, (list, tuple)):
        for i, item in enumerate(value):
            yield from walk(f"{path}/{i}", item)


def holds_layer(value: Any) -> bool:
    """Whether an attribute holds a model or may come to hold one: a layer, a list or a dict."""
    return isinstance(value, (keras.Layer, list, tuple, Mapping))


class Own:
    """The trainable weights that a system owns directly, as a member of their own."""

    def __init__(self, system: Any, layers: list[Any]) -> None:
        held = {id(v) for layer in layers for v in layer.variables}
        self.system = system
        self.weights = [v for v in system.weights if v.trainable and id(v) not in held]
        self.built = True

    @property
    def trainable_weights(self) -> list[Any]:
        """Those that are trained at present."""
        return [v for v in self.weights if v.trainable]

    @property
    def dtype_policy(self) -> Any:
        """That of the system."""
        return self.system.dtype_policy


def check_shared(models: Mapping[str, Any]) -> None:
    """Refuses a weight that two models reach: which of them would update it?"""
    owners: dict[int, str] = {}
    for name, model in models.items():
        for weight in model.weights:
            owner = owners.setdefault(id(weight), name)
            if owner != name:
                raise ValueError(
                    f"The weight '{weight.path}' is reached from two models, '{owner}' and "
                    f"'{name}', and each would update it. Let one of them own the layer; the other "
                    "can take its output as an input in `forward`."
                )

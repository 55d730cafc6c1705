"""Find the models of a system (its members) in attributes, lists, dicts and nested systems."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from typing import Any

import keras

from mlsystem import _learner


def walk(path: str, value: Any, kind: type = keras.Layer) -> Iterator[tuple[str, Any]]:
    """Yield the layers in one attribute with their paths, including layers in lists and dicts.

    >>> [path for path, _ in walk("critics", [keras.layers.Dense(1), keras.layers.Dense(1)])]
    ['critics/0', 'critics/1']
    """
    if isinstance(value, kind):
        yield path, value
    elif isinstance(value, Mapping):
        for key, item in value.items():
            yield from walk(f"{path}/{key}", item, kind)
    elif isinstance(value, (list, tuple)):
        for i, item in enumerate(value):
            yield from walk(f"{path}/{i}", item, kind)


def has_layer(value: Any) -> bool:
    """Return whether an attribute holds a model: a layer, or a list or dict with a layer."""
    return any(True for _ in walk("", value))


def holds_layer(value: Any) -> bool:
    """Return whether an attribute is a layer, or a list or dict that may later hold a layer."""
    return isinstance(value, (keras.Layer, list, tuple, Mapping))


class Own:
    """The trainable weights that a system owns directly, treated as a member."""

    def __init__(self, system: Any) -> None:
        held = {id(v) for member in direct(system).values() for v in member.variables}
        self.weights = [v for v in system.weights if v.trainable and id(v) not in held]
        self.dtype_policy = system.dtype_policy
        self.built = True

    @property
    def trainable_weights(self) -> list[Any]:
        """Return the weights that are trained at present."""
        return [v for v in self.weights if v.trainable]

    trainable_variables = trainable_weights

    def get_weights(self) -> list[Any]:
        """Return the values of the weights, as a layer does."""
        return [weight.numpy() for weight in self.weights]

    def set_weights(self, values: Sequence[Any]) -> None:
        """Set the values of the weights, as a layer does."""
        for weight, value in zip(self.weights, values, strict=True):
            weight.assign(value)


def direct(system: Any) -> dict[str, Any]:
    """Return the members by path, a nested system as one. Layers without weights are left out."""
    learner = system._mlsystem
    if learner.wiring is not None and learner.is_current:
        return dict(learner.wiring.direct)
    found: dict[str, Any] = {}
    for name in learner.attributes:
        found |= walk(name, getattr(system, name, None))
    return {
        n: m for n, m in found.items() if isinstance(m, keras.Model) or m.weights or not m.built
    }


def nested(system: Any) -> dict[str, Any]:
    """Return the systems among the members of a system."""
    return {n: m for n, m in direct(system).items() if _learner.is_system(m)}


def mark_built(system: Any) -> None:
    """Mark a nested system as built if all of its layers are built, even if it was not called."""
    for inner in nested(system).values():
        mark_built(inner)
        inner.built = inner.built or all(layer.built for layer in inner.layers)


def leaves(system: Any) -> dict[str, Any]:
    """Return the members by path, with the members of nested systems and the system's weights."""
    found: dict[str, Any] = {}
    inside = nested(system)
    for name, member in direct(system).items():
        if name in inside:
            found |= {f"{name}/{leaf}": m for leaf, m in leaves(member).items()}
        else:
            found[name] = member
    own = Own(system)
    return found | {"self": own} if own.weights else found


def trained(system: Any) -> dict[str, Any]:
    """Return the leaves that have weights to train."""
    return {name: leaf for name, leaf in leaves(system).items() if leaf.trainable_weights}


def give_names(path: str, value: Any) -> None:
    """Name the models in an attribute after the attribute, unless the user named them."""
    for name, member in walk(path, value):
        learner = _learner.of(member)
        if learner is not None and not learner.role.has_name:
            member.name = name.replace("/", "_")


def give_keys(system: Any) -> None:
    """Tell each member its name in the system."""
    for name, member in direct(system).items():
        give_names(name, member)  # also a member that was added to a list later
        if (learner := _learner.of(member)) is not None:
            learner.role = replace(learner.role, key=name, outer=system._mlsystem)
    for inner in nested(system).values():
        give_keys(inner)


def check(system: Any) -> None:
    """Raise an error if a member has no weights, or if two members share a weight."""
    found = leaves(system)
    if not found:
        raise ValueError(
            f"{type(system).__name__} has no models: set them as attributes in its constructor."
        )
    for name, member in found.items():
        if not getattr(member, "started", member.built):
            raise ValueError(
                f"'{name}' has no weights yet: {type(system).__name__}.forward does not call it. "
                "Call it there, build it beforehand, or do not set it as an attribute."
            )
    _check_shared(found)
    _check_hidden(system)


def _check_hidden(system: Any) -> None:
    known = {id(member) for member in direct(system).values()}
    for layer in system.layers:
        if _learner.of(layer) is not None and id(layer) not in known:
            raise ValueError(
                f"The model '{layer.name}' is no member of {type(system).__name__}: its "
                "attribute begins with an underscore, or it was in a list or dict that you have "
                "replaced. Give it a public name, and set lists and dicts of models once."
            )


def _check_shared(models: Mapping[str, Any]) -> None:
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

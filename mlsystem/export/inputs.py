"""Find the inputs of each member: from its network, and from a recorded call."""

import inspect
import math
from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

import keras
import numpy as np
from keras import ops, tree

from mlsystem import _keras, _learner
from mlsystem._learner import Learner
from mlsystem.export.formats import Format
from mlsystem.export.recorded_calls import Call, recorded
from mlsystem.export.served_model import OTHER_SIZE, Port, ServedModel, Slot


def served(learner: Learner, members: Mapping[str, Any], wanted: Format) -> list[ServedModel]:
    """Return the members with their inputs.

    Raises:
        ValueError: the inputs of some are unknown, or of a shape that the format refuses. The
            message lists all of them.
    """
    calls, error = recorded(learner)
    found = {name: _served(name, member, calls.get(name)) for name, member in members.items()}
    if unknown := [name for name, one in found.items() if one is None]:
        raise ValueError(
            f"The inputs of {_listed(unknown)} are not known: `forward` of '{learner.name}' "
            f"{'fails on made-up data' if error else 'calls no such model by itself'}. Call it "
            "there, make its network of keras.Input, or name the others: export(models=[...])."
        ) from error
    models = [one for one in found.values() if one is not None]
    _check_shapes(models, wanted)
    return models


def _listed(names: Sequence[str]) -> str:
    return ", ".join(f"'{name}'" for name in names)


def _check_shapes(models: Sequence[ServedModel], wanted: Format) -> None:
    free = [
        f"'{port.name}' of '{one.name}' has the shape {port.shape}"
        for one in models
        for port in one.inputs
        if wanted.fixed and None in port.shape[1:]
    ]
    if free:
        raise ValueError(
            f"The format '{wanted.name}' needs the size of each dimension but the first, and "
            f"{'; '.join(free)}. Give its keras.Input a fixed shape, or export to another format."
        )


def _served(name: str, member: Any, call: Call | None) -> ServedModel | None:
    inner = network(member)
    symbols = _symbols(inner)
    if call is None:
        if symbols is None:
            return None
        call = (symbols,), {}
    args, kwargs = call
    kwargs = {key: value for key, value in kwargs.items() if key not in ("training", "mask")}
    free = [] if symbols is None else tree.flatten(symbols)
    names = _names(member, args, kwargs, free)
    ports: list[Port] = []
    arguments = tree.map_structure(lambda leaf: _slot(leaf, names, ports), (args, kwargs))
    if len(free) == len(ports):
        ports = [_freed(port, symbol) for port, symbol in zip(ports, free, strict=True)]
    if _takes_training(member):
        arguments[1]["training"] = False
    return ServedModel(name, member, arguments, ports)


def _takes_training(member: Any) -> bool:
    named = inspect.signature(member.call).parameters.values()
    return any(p.name == "training" or p.kind is p.VAR_KEYWORD for p in named)


# The network in a model -----------------------------------------------------------------------


def network(member: Any) -> Any:
    """Return the network in a model that only wraps one: that of an `MLModel`, or of a copy."""
    while _learner.of(member) is not None:
        if _learner.is_copy(member):
            member = member.source
        elif (net := getattr(member, "net", None)) is not None and _has_default_call(member):
            member = net
        else:
            break
    return member


def _has_default_call(member: Any) -> bool:
    return bool(type(member).call.__module__.startswith("mlsystem."))


def _symbols(inner: Any) -> Any:
    """Return the symbolic inputs of a functional or sequential network. None for any other."""
    if isinstance(inner, keras.Sequential):
        return inner.inputs[0] if inner.built else None
    return inner.input if isinstance(inner, _keras.Functional) else None


# Names, shapes and dtypes ---------------------------------------------------------------------


def _names(member: Any, args: Any, kwargs: Any, symbols: Sequence[Any]) -> list[str]:
    """Name the arrays of a call: by keys, by arguments, or as the user named `keras.Input`s."""
    bound = _bound(member, args, kwargs)
    paths = [path for path, leaf in tree.flatten_with_path(bound) if hasattr(leaf, "shape")]
    named = [str(symbol.name) for symbol in symbols]
    if len(named) == len(paths) and not any(_is_automatic(name) for name in named):
        return named
    return ["_".join(map(str, path[1:] if _has_key(path) else path)) for path in paths]


def _bound(member: Any, args: Any, kwargs: Any) -> dict[str, Any]:
    """Return the arguments of a call by the names of the parameters."""
    names = [
        p.name
        for p in inspect.signature(member.call).parameters.values()
        if p.kind in (p.POSITIONAL_ONLY, p.POSITIONAL_OR_KEYWORD)
    ]
    names += [f"input_{i}" for i in range(len(names), len(args))]
    return dict(zip(names, args, strict=False)) | kwargs


def _has_key(path: Sequence[Any]) -> bool:
    return len(path) > 1 and isinstance(path[1], str)


def _is_automatic(name: str) -> bool:
    return name.startswith(("keras_tensor", "input_layer"))


def _slot(leaf: Any, names: Sequence[str], ports: list[Port]) -> Any:
    """Replace an array by its slot, and note its port."""
    if not hasattr(leaf, "shape"):
        return leaf
    shape = tuple(leaf.shape)
    sizes = tuple(OTHER_SIZE if size is None else int(size) for size in shape)
    dtype = keras.backend.standardize_dtype(leaf.dtype)
    limits = (0, 1) if isinstance(leaf, keras.KerasTensor) else _limits(leaf, dtype)
    free = (None, *shape[1:]) if shape else ()
    ports.append(Port(names[len(ports)], free, dtype, sizes, limits))
    return Slot(len(ports) - 1)


def _limits(leaf: Any, dtype: str) -> tuple[int, int]:
    if "int" not in dtype or not math.prod(leaf.shape):
        return 0, 1
    array = np.asarray(ops.convert_to_numpy(leaf))
    return int(array.min()), int(array.max())


def _freed(port: Port, symbol: Any) -> Port:
    """Free the dimensions of a port that are free in the network's own input."""
    if len(symbol.shape) != len(port.shape):
        return port
    pairs = zip(port.shape, symbol.shape, strict=True)
    return replace(port, shape=tuple(None if s is None else n for n, s in pairs))

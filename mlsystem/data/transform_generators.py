"""Find, save and restore the random generators that transforms of data use."""

import contextlib
import functools
import random
from collections.abc import Iterable, Iterator, Mapping
from types import BuiltinMethodType, CodeType, FunctionType, MethodType, ModuleType
from typing import Any

import keras
import numpy as np

from mlsystem import _keras

_KINDS = (np.random.Generator, np.random.RandomState, random.Random)
_NOTHING = (str, bytes, int, float, complex, type(None), np.ndarray, type, ModuleType)
_DEPTH = 20  # of nested attributes and items; cycles end earlier
_LIBRARIES = ("builtins", "mlsystem", "keras", "numpy", "jax", "torch", "tensorflow", "optree")
_LONGEST = 1000  # longer lists and dicts are data


def is_generator(value: Any) -> bool:
    """Return whether a value is a random generator of NumPy or Python."""
    return isinstance(value, _KINDS)


def read(generator: Any) -> Any:
    """Return the state of a generator, as numbers and arrays."""
    if isinstance(generator, np.random.Generator):
        return generator.bit_generator.state
    if isinstance(generator, np.random.RandomState):
        return generator.get_state(legacy=False)
    return generator.getstate()


def write(generator: Any, state: Any) -> None:
    """Set the state of a generator."""
    if isinstance(generator, np.random.Generator):
        generator.bit_generator.state = state
    elif isinstance(generator, np.random.RandomState):
        generator.set_state(state)
    else:
        generator.setstate(state)


@contextlib.contextmanager
def kept(generators: Iterable[Any]) -> Iterator[None]:
    """Restore the state of some generators after the context."""
    before = [(generator, read(generator)) for generator in generators]
    try:
        yield
    finally:
        for generator, state in before:
            write(generator, state)


def find(root: Any) -> dict[str, Any]:
    """Return the generators and Keras variables from which a function or object can draw.

    Their keys are their paths: attributes, items of lists and dicts, and names in functions.
    Data sets are not searched, because they save their own state.

    >>> rng = np.random.default_rng(0)
    >>> find(lambda x: x + rng.normal()) == {".rng": rng}
    True
    """
    return dict(_walk(root, "", {}))


def _walk(value: Any, path: str, seen: dict[int, Any]) -> Iterator[tuple[str, Any]]:
    if id(value) in seen or isinstance(value, _NOTHING) or path.count(".") > _DEPTH:
        return
    seen[id(value)] = value  # keeps the object alive, so that its id stays unique
    if is_generator(value) or isinstance(value, keras.Variable):
        yield path, value
        return
    for name, part in _held(value).items():
        yield from _walk(part, f"{path}.{name}", seen)


def _held(value: Any) -> Mapping[str, Any]:
    """Return the contents of an object or a function, by name."""
    if isinstance(value, keras.Layer):
        seeds = [v for v in value.variables if v.name == "seed_generator_state"]
        own = {name: part for name, part in vars(value).items() if is_generator(part)}
        return {**own, **{str(i): seed for i, seed in enumerate(seeds)}}
    if isinstance(value, FunctionType):
        return _named(value)
    if isinstance(value, (MethodType, BuiltinMethodType)):
        return {"self": value.__self__, "function": getattr(value, "__func__", None)}
    if isinstance(value, functools.partial):
        return {"function": value.func, "given": [value.args, value.keywords]}
    if isinstance(value, (list, tuple, dict)):
        pairs = value.items() if isinstance(value, dict) else enumerate(value)
        return {str(name): part for name, part in pairs} if len(value) <= _LONGEST else {}
    if _keras.kind_of_data(value) is not None:
        return {}
    return {**_of_class(type(value)), **getattr(value, "__dict__", {})}


def _of_class(cls: type) -> dict[str, Any]:
    """Return the attributes and methods of a class, without the classes of libraries."""
    own = [
        base for base in cls.__mro__[::-1] if base.__module__.partition(".")[0] not in _LIBRARIES
    ]
    return {name: part for base in own for name, part in vars(base).items()}


def _named(function: FunctionType) -> dict[str, Any]:
    """Return the values that a function takes from outside, by name."""
    code, cells = function.__code__, function.__closure__ or ()
    found = {name: function.__globals__.get(name) for name in _names(code)}
    found |= {f"default {i}": value for i, value in enumerate(function.__defaults__ or ())}
    found |= function.__kwdefaults__ or {}
    for name, cell in zip(code.co_freevars, cells, strict=True):
        with contextlib.suppress(ValueError):  # a variable that is not set yet
            found[name] = cell.cell_contents
    return {name: part for name, part in found.items() if not _is_far(part, code)}


def _names(code: CodeType) -> Iterator[str]:
    yield from code.co_names
    for inner in code.co_consts:
        if isinstance(inner, CodeType):
            yield from _names(inner)


def _is_far(value: Any, code: CodeType) -> bool:
    """Return whether a value is a function of another file. Libraries are not searched."""
    is_function = isinstance(value, FunctionType)
    return is_function and value.__code__.co_filename != code.co_filename

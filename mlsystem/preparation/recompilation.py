"""Detect changes of attributes and methods after which a step must be compiled again.

A compiled step keeps the attributes and methods of its time. `fit` compiles it again if they
changed.
"""

import contextlib
import inspect
import warnings
from collections.abc import Iterator, Mapping
from types import FunctionType, MethodType
from typing import Any

from mlsystem import _attribute_names, _keras, _learner
from mlsystem._learner import Learner
from mlsystem.step import user_methods

MOST = 16  # after so many calls in a row with a change, an attribute is no longer watched
_PLAIN = {bool, int, float, str, type(None)}
_KINDS = {*_PLAIN, tuple, FunctionType, MethodType}
_LIBRARIES = {
    "keras",
    "mlsystem",
    "torch",
    "jax",
    "flax",
    "tensorflow",
    "builtins",
    "abc",
    "typing",
}

# By owner, then by name. One key of both would cost more than everything else here: so many new
# tuples would trigger Python's garbage collector.
Found = dict[Any, dict[str, Any]]


def see(learner: Learner) -> None:
    """Compile the steps again if attributes or methods changed. Called before `fit` and `setup`."""
    compiled = learner.compiled
    for cls in _classes(_keras.flat_layers(learner.model)):
        if issubclass(cls, _keras.Hooks):
            user_methods.adopt(cls)
    if compiled.made_from is None:
        _forget(learner)
        return
    changed = _changed(compiled.made_from, of(learner)) - compiled.restless
    compiled.hasty = {key: compiled.hasty.get(key, 0) + 1 for key in changed}
    if changed:
        _start_anew(learner)
        _leave_restless(learner)


def _start_anew(learner: Learner) -> None:
    model = learner.model
    _forget(learner)
    learner.reset()
    learner.logs.owners.clear()
    learner.compiled.made_from = None
    model.train_function = model.test_function = model.predict_function = None


def _forget(learner: Learner) -> None:
    """Forget what the methods of a model, and of the models inside it, decided."""
    for layer in _keras.flat_layers(learner.model):
        if (inner := _learner.of(layer)) is not None:
            inner.forget()
            _keras.read_signature(layer)


def _leave_restless(learner: Learner) -> None:
    """Stop watching an attribute that changes before each call."""
    compiled = learner.compiled
    for key in [key for key, count in compiled.hasty.items() if count >= MOST]:
        compiled.restless.add(key)
        warnings.warn(
            f"The step of '{learner.name}' was compiled again before each of {MOST} calls, because "
            f"`{key[1]}` had changed. From now on, changes of this attribute may have no effect. "
            "If the step uses it, make it a keras.Variable.",
            stacklevel=2,
        )


def note(learner: Learner, before: Found) -> None:
    """Store the values behind the steps, without values that a rehearsed step itself changes."""
    compiled, now = learner.compiled, of(learner)
    compiled.restless |= _changed(before, now)
    known = compiled.made_from or {}
    compiled.made_from = {o: now.get(o, {}) | known.get(o, {}) for o in now.keys() | known.keys()}


def _changed(before: Found, now: Found) -> set[tuple[Any, str]]:
    """Return the owners and names of the values that differ."""
    missing, changed = object(), set()
    for owner in before.keys() | now.keys():
        old, new = before.get(owner, {}), now.get(owner, {})
        if old != new:
            names = old.keys() | new.keys()
            changed |= {(owner, n) for n in names if old.get(n, missing) != new.get(n, missing)}
    return changed


def of(learner: Learner) -> Found:
    """Return the plain attributes of all layers and optimizers, and the code of their methods.

    The owners are layers by their id, classes, and optimizers by their model.
    """
    layers = _keras.flat_layers(learner.model)
    found: Found = {}
    inner = {n: getattr(o, "inner_optimizer", o) for n, o in learner.optimizers.items()}
    for key, owner in [*((id(layer), layer) for layer in layers), *inner.items()]:
        found[key] = {
            name: value if type(value) in _PLAIN else _value(name, value)
            for name, value in vars(owner).items()
            if name[0] != "_"
            and name not in _attribute_names.OF_KERAS
            and (type(value) in _KINDS or name in _attribute_names.DECLARED)
        }
    for cls in _classes(layers):
        held = {name: value for name, value in vars(cls).items() if name[:2] != "__"}
        found[cls] = {name: _value(name, value) for name, value in held.items()}
    return found


def _classes(layers: list[Any]) -> Iterator[Any]:
    """Return the users' classes of some layers, including their base classes."""
    kinds = dict.fromkeys(map(type, layers))
    bases = dict.fromkeys(base for kind in kinds for base in kind.__mro__)
    return (base for base in bases if _is_users(base))


def _is_users(owner: Any) -> bool:
    return str(owner.__module__).partition(".")[0] not in _LIBRARIES


def _value(name: str, value: Any) -> Any:
    """Return an attribute in a form that can be compared."""
    if isinstance(value, tuple) or name in _attribute_names.DECLARED:
        return _spelled(value)
    if isinstance(value, property):
        value = value.fget
    function = inspect.unwrap(getattr(value, "__func__", value)) if callable(value) else value
    is_users = isinstance(function, FunctionType) and _is_users(function)
    owner = id(getattr(value, "__self__", None))  # the owner of a bound method
    return (_code(function, set()), owner) if is_users else _one(value)


def _one(value: Any) -> Any:
    """Return a plain value unchanged, and the id of any other object."""
    return value if type(value) in _PLAIN else id(value)


def _spelled(value: Any) -> Any:
    """Return the contents of a tuple, or of a declaration such as a routing."""
    if isinstance(value, Mapping):
        return tuple((key, _spelled(item)) for key, item in value.items())
    if isinstance(value, (list, tuple)):
        return tuple(map(_spelled, value))
    return _one(value)


def _held(function: FunctionType) -> list[Any]:
    """Return the closure variables of a function."""
    found = []
    for cell in function.__closure__ or ():
        with contextlib.suppress(ValueError):  # an empty cell
            found.append(_one(cell.cell_contents))
    return found


def _code(function: FunctionType, seen: set[Any]) -> Any:
    """Return the code of a function, with the module's numbers and functions that it uses."""
    code = function.__code__
    seen.add(code)
    found = [code, _spelled(function.__defaults__ or ()), *_held(function)]
    for name in code.co_names:
        value = function.__globals__.get(name, function)
        if type(value) in _PLAIN:
            found.append(value)
        elif isinstance(value, FunctionType) and _is_users(value) and value.__code__ not in seen:
            found.append(_code(value, seen))
    return tuple(found)

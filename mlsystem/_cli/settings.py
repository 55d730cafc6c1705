"""`--set generator.optimizer.learning_rate=1e-4`: set attributes of a system by their path."""

import argparse
import functools
import operator
from collections.abc import Iterable, Mapping
from typing import Any

import keras

from mlsystem._cli.mistake import Mistake, near


def apply(texts: Iterable[str], system: Any, data: Any) -> None:
    """Apply settings. Those of optimizers come last, after the system is set up.

    Raises:
        Mistake: there is no such attribute, or its value is of another type.
    """
    for text in sorted(texts, key=_is_of_optimizer):
        if _is_of_optimizer(text):
            system.setup(data)
        _set(system, text)


def _is_of_optimizer(text: str) -> bool:
    return ".optimizer" in f".{text.partition('=')[0]}"


def _set(system: Any, text: str) -> None:
    path, equals, value = text.partition("=")
    # A member in a list has a name such as `critics/0`.
    names = [part for part in path.replace("/", ".").split(".") if part]
    if not equals or not names:
        raise Mistake(f"--set got '{text}'. Write PATH=VALUE, such as net.dropout.rate=0.1.")
    owner, before, where = None, system, type(system).__name__
    for i, last in enumerate(names):
        owner, before = before, _got(before, last, where, path)
        where = ".".join(names[: i + 1])
    new = _value(value, before, path)
    try:
        if isinstance(before, keras.Variable):
            before.assign(new)
        elif isinstance(owner, dict):
            owner[last] = new
        elif isinstance(owner, list):
            owner[int(last)] = new
        else:
            setattr(owner, last, new)
    except (AttributeError, TypeError, ValueError) as error:
        raise Mistake(f"--set {path} cannot be set: {error}") from error


def _got(owner: Any, name: str, where: str, path: str) -> Any:
    if isinstance(owner, (list, tuple)) and name.isdigit() and int(name) < len(owner):
        return owner[int(name)]
    if isinstance(owner, Mapping) and name in owner:
        return owner[name]
    if not name.startswith("_") and hasattr(owner, name):
        return getattr(owner, name)
    names = map(str, owner if isinstance(owner, Mapping) else dir(owner))
    known = [n for n in names if n != name and not n.startswith("_")]  # `dir` lists what raises
    raise Mistake(f"--set {path}: {where} has no '{name}'.{near(name, known)}")


def _value(text: str, before: Any, path: str) -> Any:
    """Read a value of the type that the attribute has now."""
    import jsonargparse

    kind = _type(before, path)
    parser = jsonargparse.ArgumentParser(exit_on_error=False)
    parser.add_argument("--value", type=kind)
    try:
        return parser.parse_args([f"--value={text}"]).value
    except argparse.ArgumentError:
        now = before.numpy() if isinstance(before, keras.Variable) else repr(before)
        wanted = str(kind).replace(" | ", " or ").replace("<class 'bool'>", "True or False")
        raise Mistake(f"--set {path}={text}: it is {now} now. Give {wanted}.") from None


def _type(before: Any, path: str) -> Any:
    """Return the type that a new value must have. A list or dict holds what it holds now."""
    schedule = keras.optimizers.schedules.LearningRateSchedule
    if isinstance(before, (bool, str)):
        return type(before)
    if isinstance(before, (int, float, schedule)) or getattr(before, "shape", None) == ():
        return int | float
    if isinstance(before, (list, tuple)):
        item = _any(before, path)
        return list[item] if isinstance(before, list) else tuple[item, ...]  # type: ignore[valid-type]
    if isinstance(before, Mapping):
        return dict[str, _any(before.values(), path)]  # type: ignore[misc]
    if before is None or isinstance(before, keras.Variable):
        return Any
    raise Mistake(f"--set {path}: it is of type {type(before).__name__}, not a value.")


def _any(values: Iterable[Any], path: str) -> Any:
    return functools.reduce(operator.or_, [_type(each, path) for each in values] or [Any])

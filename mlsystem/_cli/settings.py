"""`--set generator.optimizer.learning_rate=1e-4`: set attributes of a system by their path."""

import ast
from collections.abc import Mapping, Sequence
from typing import Any

import keras

from mlsystem._cli.mistake import Mistake, near


class Setting:
    """One `PATH=VALUE`. A path begins with a member, by the name in the logs, or an attribute."""

    def __init__(self, text: str) -> None:
        self.path, equals, value = text.partition("=")
        if not equals or not self.path.strip("./"):
            raise Mistake(f"--set got '{text}'. Write PATH=VALUE, such as net.dropout.rate=0.1.")
        self.value = _literal(value)

    def is_of_optimizer(self) -> bool:
        """Return whether the path goes through an optimizer, which exists after `setup` only."""
        return ".optimizer" in f".{self.path}"

    def apply(self, system: Any) -> None:
        """Set the attribute.

        Raises:
            Mistake: there is no such attribute, or its value is of another kind.
        """
        *inside, last = self._parts()
        owner = system
        for i, name in enumerate(inside):
            owner = _got(owner, name, ".".join(inside[:i]) or type(system).__name__, self.path)
        before = _got(owner, last, ".".join(inside) or type(system).__name__, self.path)
        self._check(before)
        try:
            if isinstance(owner, dict):
                owner[last] = self.value
            elif isinstance(owner, list) and last.isdigit():
                owner[int(last)] = self.value
            else:
                setattr(owner, last, self.value)
        except AttributeError as error:
            raise Mistake(f"--set {self.path} cannot be set: {error}.") from error

    def _parts(self) -> list[str]:
        # A member in a list has a name such as `critics/0`.
        return [part for part in self.path.replace("/", ".").split(".") if part]

    def _check(self, before: Any) -> None:
        expected = _kind(before)
        is_bool = isinstance(self.value, bool) and bool not in (expected or ())
        if expected is None or (isinstance(self.value, expected) and not is_bool):
            return
        names = " or ".join(kind.__name__ for kind in expected).replace("bool", "True or False")
        now = before.numpy() if isinstance(before, keras.Variable) else repr(before)
        raise Mistake(f"--set {self.path}={self.value!r}: it is {now} now. Give {names}.")


def apply(settings: Sequence[Setting], system: Any, data: Any) -> None:
    """Apply settings, those of optimizers after the system is set up."""
    for setting in settings:
        if not setting.is_of_optimizer():
            setting.apply(system)
    late = [setting for setting in settings if setting.is_of_optimizer()]
    if late:
        system.setup(data)
    for setting in late:
        setting.apply(system)


def _literal(text: str) -> Any:
    try:
        return ast.literal_eval(text)
    except (ValueError, SyntaxError):
        return text


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


def _kind(before: Any) -> tuple[type, ...] | None:
    if isinstance(before, bool):
        return (bool,)
    if isinstance(before, (int, float, keras.Variable)) or _is_schedule(before):
        return (int, float)
    if callable(before):
        name, kind = getattr(before, "__name__", before), type(before).__name__
        raise Mistake(f"--set: '{name}' is a {kind}, not a value.")
    return None if before is None else (type(before),)


def _is_schedule(value: Any) -> bool:
    return isinstance(value, keras.optimizers.schedules.LearningRateSchedule)

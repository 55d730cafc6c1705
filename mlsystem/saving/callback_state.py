"""Save and restore the state of callbacks."""

import copy
import hashlib
from collections.abc import Iterable, Iterator, MutableMapping, MutableSequence
from typing import Any

import keras
import numpy as np

from mlsystem.saving import csv_logger_file, packing

_Callback = keras.callbacks.Callback
# Keras flips the sign of `min_delta` each time it sets the direction of a comparison.
_LEFT = ("params", "min_delta")


class CallbackStates:
    """The attributes of callbacks that change in training and are numbers, strings or arrays.

    Args:
        callbacks: the callbacks of a `fit`.
        given: the names of the callbacks from the user.
    """

    def __init__(self, callbacks: Iterable[Any], given: list[str]) -> None:
        self.given = given
        self.callbacks = list(_walk(callbacks))
        self.start: list[dict[str, Any]] = []

    def begin(self) -> None:
        """Record the attributes of the callbacks at the start of training."""
        self.start = [_prints(callback) for _, callback in self.callbacks]

    def read(self) -> list[Any]:
        """Return each callback's name, its changed attributes, and the file of a CSVLogger."""
        return [
            {
                "name": n,
                "attributes": _changed(callback, start),
                "file": csv_logger_file.read(callback),
            }
            for (n, callback), start in zip(self.callbacks, self.start, strict=True)
        ]

    def write(self, states: list[Any]) -> None:
        """Restore the attributes of callbacks with the same name in the same order.

        Strings of callbacks from Keras and this library stay. They may hold the path to write to.
        """
        for callback, state in self._matched(states):
            for attribute, value in state["attributes"].items():
                if not _is_place(callback, value):
                    _set(callback, attribute, copy.deepcopy(value))

    def saved(self, callback: Any, states: list[Any]) -> dict[str, Any]:
        """Return the saved attributes of a callback, before they are restored."""
        found = (state for known, state in self._matched(states) if known is callback)
        return next((state["attributes"] for state in found), {})

    def write_files(self, states: list[Any]) -> None:
        """Restore the files of CSVLoggers, after their attributes are restored."""
        for callback, state in self._matched(states):
            csv_logger_file.write(callback, state.get("file"))

    def _matched(self, states: list[Any]) -> Iterator[tuple[Any, Any]]:
        left = list(states)
        for name, callback in self.callbacks:
            found = next((i for i, state in enumerate(left) if state["name"] == name), None)
            if found is not None:
                yield callback, left.pop(found)


def names(callbacks: Iterable[Any]) -> list[str]:
    """Return the names of the callbacks from the user.

    >>> names([keras.callbacks.EarlyStopping("loss"), keras.callbacks.History()])
    ['EarlyStopping(loss)']
    """
    own = (keras.callbacks.History, keras.callbacks.ProgbarLogger)
    return [name for name, callback in _walk(callbacks) if not isinstance(callback, own)]


def _walk(
    callbacks: Iterable[Any], outer: str = "", seen: set[int] | None = None
) -> Iterator[tuple[str, Any]]:
    """Yield callbacks and their inner callbacks, named by class, monitored log and model."""
    seen = set() if seen is None else seen
    for callback in callbacks:
        if id(callback) in seen:
            continue
        seen.add(id(callback))
        told: list[Any] = [getattr(callback, of, None) for of in ("name", "monitor")]
        named = ", ".join(text for text in told if isinstance(text, str))
        name = f"{outer}{type(callback).__name__}({named})"
        yield name, callback
        held = [v for v in vars(callback).values() if isinstance(v, keras.callbacks.Callback)]
        yield from _walk(held, f"{name}/", seen)


def _is_place(callback: Any, value: Any) -> bool:
    """Return whether a library's callback may write to this value. A file must not decide that."""
    bases = [base.__module__ for base in type(callback).__mro__[:-1] if base is not _Callback]
    return isinstance(value, str) and any(b.startswith(("keras.", "mlsystem.")) for b in bases)


def _set(callback: Any, name: str, value: Any) -> None:
    """Set an attribute. Fill a dict or list of a subclass, such as a `Counter`, in place."""
    now = getattr(callback, name, None)
    if type(now) is type(value):
        setattr(callback, name, value)
    elif isinstance(value, dict) and isinstance(now, MutableMapping):
        now.clear()
        now.update(value)
    elif isinstance(value, list) and isinstance(now, MutableSequence):
        now[:] = value
    else:
        setattr(callback, name, value)


def _changed(callback: Any, start: dict[str, Any]) -> dict[str, Any]:
    now = _prints(callback)
    return {n: getattr(callback, n) for n, print_ in now.items() if print_ != start.get(n)}


def _prints(callback: Any) -> dict[str, Any]:
    """Return values that show whether attributes changed. Of arrays, they hold only a digest."""
    prints = {}
    for name, value in vars(callback).items():
        arrays: list[Any] = []
        try:
            prints[name] = packing.pack(value, arrays), [_digest(array) for array in arrays]
        except (TypeError, RecursionError):  # a kind that is not saved, or a list in itself
            continue
    return {name: value for name, value in prints.items() if name not in _LEFT}


def _digest(array: Any) -> Any:
    content = hashlib.blake2b(np.ascontiguousarray(array).data)
    return array.dtype, array.shape, content.digest()

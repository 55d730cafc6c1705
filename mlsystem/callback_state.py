"""What callbacks remember: the best value so far, for how long nothing was better."""

from collections.abc import Iterable, Iterator
from typing import Any

import keras
import numpy as np

from mlsystem import plain

# Keras turns the sign of `min_delta` whenever it looks up what to compare a value by.
_LEFT = ("params", "min_delta")


class CallbackStates:
    """The attributes of callbacks that change in training and are numbers, strings or arrays.

    Args:
        callbacks: the callbacks of a `fit`.
        given: the names of those that the user gave.
    """

    def __init__(self, callbacks: Iterable[Any], given: list[str]) -> None:
        self.given = given
        self.callbacks = list(_walk(callbacks))
        self.start: list[dict[str, Any]] = []

    def begin(self) -> None:
        """Notes what the callbacks remember at the beginning of training."""
        self.start = [_kept(callback) for _, callback in self.callbacks]

    def read(self) -> list[Any]:
        """The name of each callback, and its attributes that have changed."""
        return [
            {"name": name, "attributes": _changed(callback, start)}
            for (name, callback), start in zip(self.callbacks, self.start, strict=True)
        ]

    def write(self, states: list[Any]) -> None:
        """Sets the attributes again, of callbacks of the same name in the same order."""
        left = list(states)
        for name, callback in self.callbacks:
            found = next((state for state in left if state["name"] == name), None)
            if found is not None:
                left.remove(found)
                for name, value in found["attributes"].items():
                    setattr(callback, name, value)


def names(callbacks: Iterable[Any]) -> list[str]:
    """The names of the callbacks that a user gave.

    >>> names([keras.callbacks.EarlyStopping("loss"), keras.callbacks.History()])
    ['EarlyStopping(loss)']
    """
    own = (keras.callbacks.History, keras.callbacks.ProgbarLogger)
    return [name for name, callback in _walk(callbacks) if not isinstance(callback, own)]


def _walk(callbacks: Iterable[Any], outer: str = "") -> Iterator[tuple[str, Any]]:
    """Callbacks, and those that they hold, by class, by what they monitor, and by model."""
    for callback in callbacks:
        told: list[Any] = [getattr(callback, of, None) for of in ("name", "monitor")]
        named = ", ".join(text for text in told if isinstance(text, str))
        name = f"{outer}{type(callback).__name__}({named})"
        yield name, callback
        held = [v for v in vars(callback).values() if isinstance(v, keras.callbacks.Callback)]
        yield from _walk(held, f"{name}/")


def _kept(callback: Any) -> dict[str, Any]:
    kept = {}
    for name, value in vars(callback).items():
        arrays: list[Any] = []
        try:
            kept[name] = plain.pack(value, arrays), arrays
        except TypeError:
            continue
    return {name: value for name, value in kept.items() if name not in _LEFT}


def _changed(callback: Any, start: dict[str, Any]) -> dict[str, Any]:
    now = _kept(callback)
    return {n: getattr(callback, n) for n, kept in now.items() if not _same(kept, start.get(n))}


def _same(kept: Any, before: Any) -> bool:
    if before is None or kept[0] != before[0]:
        return False
    return all(np.array_equal(a, b) for a, b in zip(kept[1], before[1], strict=True))

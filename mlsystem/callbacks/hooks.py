"""The methods by which Keras tells callbacks what happens, and whether one listens."""

from typing import Any

import keras

NAMES = [name for name in dir(keras.callbacks.Callback) if name.startswith("on_")]


def has(callback: Any, hook: str) -> bool:
    """Whether a callback does anything at a hook: by a method or a function of its own."""
    own = getattr(getattr(callback, hook), "__func__", None)
    return own is not getattr(keras.callbacks.Callback, hook)

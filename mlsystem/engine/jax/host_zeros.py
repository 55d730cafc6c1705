"""Zeros made by NumPy: JAX compiles a program for each shape of zeros, which takes some 40 ms."""

import contextlib
import math
import threading
from collections.abc import Iterator
from typing import Any

import jax
import keras
import numpy as np

from mlsystem import _keras

MOST = 10**7  # larger zeros are made on the device, which then is faster than to copy them

_lock = threading.RLock()  # all threads have the same initializer


@contextlib.contextmanager
def host_zeros() -> Iterator[None]:
    """Let Keras' initializer of zeros make arrays of NumPy, outside of traced code."""
    zeros: Any = keras.initializers.Zeros

    def on_host(self: Any, shape: Any, dtype: Any = None) -> Any:
        if math.prod(shape) > MOST or _keras.get_stateless_scope() is not None:
            return made(self, shape, dtype)
        return jax.device_put(np.zeros(shape, keras.backend.standardize_dtype(dtype)))

    with _lock:
        made, zeros.__call__ = zeros.__call__, on_host
        try:
            yield
        finally:
            zeros.__call__ = made

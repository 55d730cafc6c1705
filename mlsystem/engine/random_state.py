"""The random generators that a process shares: Python's, NumPy's, Keras' and the backend's."""

import random
from typing import Any

import numpy as np
from keras import ops

from mlsystem import _keras
from mlsystem.engine import engine


def state() -> dict[str, Any]:
    """The state of the generators, as numbers and arrays."""
    return {
        "python": random.getstate(),
        "numpy": np.random.get_state(),
        "backend": engine.random_state(),
    }


def restore(state: dict[str, Any]) -> None:
    """Puts the generators back where `state` found them."""
    random.setstate(state["python"])
    np.random.set_state(state["numpy"])
    engine.set_random_state(state["backend"])


def seed() -> Any:
    """The seed of what draws without one of its own, by Keras; None if nothing has."""
    known = _keras.known_global_seed()
    return None if known is None else np.array(ops.convert_to_numpy(known))


def set_seed(value: Any) -> None:
    """Sets that seed."""
    if value is not None:
        _keras.global_seed().assign(value)

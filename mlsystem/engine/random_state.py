"""The random generators that a process shares: Python's, NumPy's, Keras' and the backend's."""

import random
from typing import Any

import numpy as np
from keras import ops

from mlsystem import _keras
from mlsystem.engine import engine


def state() -> dict[str, Any]:
    """Return the state of the generators, as numbers and arrays."""
    return {
        "python": random.getstate(),
        "numpy": np.random.get_state(),
        "backend": engine.random_state(),
    }


def restore(state: dict[str, Any]) -> None:
    """Set the generators to a state that `state` returned."""
    random.setstate(state["python"])
    np.random.set_state(state["numpy"])
    engine.set_random_state(state["backend"])


def seed() -> Any:
    """Return the global seed of Keras, for draws without their own seed. None if it is unset."""
    known = _keras.known_global_seed()
    return None if known is None else np.array(ops.convert_to_numpy(known))


def set_seed(value: Any) -> None:
    """Set the global seed of Keras, unless the value is None."""
    if value is not None:
        _keras.global_seed().assign(value)

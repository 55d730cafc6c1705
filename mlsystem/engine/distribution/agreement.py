"""Random generators that are equal on all processes, so that all read the same batches."""

import random
import zlib

import numpy as np

from mlsystem import _keras
from mlsystem.engine import engine, random_state


def on_random_state() -> None:
    """Take the random state of the first process, unless all processes have the same.

    Noise in a step differs nevertheless: each process draws other numbers from the same seed.
    """
    replicas = engine.replicas
    if len(set(replicas.collect(_digest()))) > 1:
        state = (random_state.state(), random_state.seed()) if replicas.index == 0 else None
        _take(*replicas.collect(state)[0])
    replicas.vary_noise()


def _take(generators: dict[str, object], seed: object) -> None:
    random_state.restore(generators)
    if seed is None:
        _keras.forget_global_seed()
    random_state.set_seed(seed)


def _digest() -> int:
    _, keys, *place = np.random.get_state(legacy=True)
    [backend, *_] = engine.random_state() or [np.zeros(0)]  # generators of devices differ
    numbers = [np.asarray(part).tolist() for part in (keys, backend, random_state.seed())]
    return zlib.crc32(repr((random.getstate(), place, numbers)).encode())

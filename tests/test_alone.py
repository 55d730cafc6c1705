"""The tests run beside one backend, also where the others are installed."""

import importlib.util
import sys

import keras
import pytest

OTHERS = [b for b in ("jax", "torch", "tensorflow") if b != keras.backend.backend()]


@pytest.mark.parametrize("other", OTHERS)
def test_the_other_backends_are_not_there(other):
    assert importlib.util.find_spec(other) is None
    with pytest.raises(ModuleNotFoundError):
        importlib.import_module(other)
    assert not any(name.partition(".")[0] == other for name in sys.modules)

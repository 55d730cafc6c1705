"""The tests run on the backend that KERAS_BACKEND names; a missing one fails the whole run."""

import importlib
import os

import pytest

BACKENDS = ("jax", "torch", "tensorflow")

backend = os.environ.get("KERAS_BACKEND")
if backend not in BACKENDS:
    raise pytest.UsageError(
        f"KERAS_BACKEND is {backend!r}. Set it to one of {', '.join(BACKENDS)}."
    )
importlib.import_module(backend)

import keras  # noqa: E402

if keras.backend.backend() != backend:
    raise pytest.UsageError(f"Keras runs on {keras.backend.backend()}, and not on {backend}.")


@pytest.fixture(autouse=True)
def same_start():
    """Each test starts from the same names and seeds, whichever tests ran before it."""
    keras.utils.clear_session(free_memory=False)
    keras.utils.set_random_seed(0)

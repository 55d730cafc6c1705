"""The tests run on the backend that KERAS_BACKEND names; a missing one fails the whole run."""

import importlib
import os

import pytest

BACKENDS = ("jax", "torch", "tensorflow")
# Numbers are compared to six digits, and a GPU multiplies with three unless it is told otherwise.
ON = {
    "cpu": {"CUDA_VISIBLE_DEVICES": "", "JAX_PLATFORMS": "cpu"},
    "gpu": {"JAX_DEFAULT_MATMUL_PRECISION": "highest", "NVIDIA_TF32_OVERRIDE": "0"},
}


def pytest_addoption(parser):
    parser.addoption("--device", choices=list(ON), default="cpu", help="what the tests run on")
    parser.addoption("--kills", type=int, default=2, help="how often a run is killed and resumed")


def pytest_configure(config):
    backend, device = os.environ.get("KERAS_BACKEND"), config.getoption("device")
    if backend not in BACKENDS:
        raise pytest.UsageError(
            f"KERAS_BACKEND is {backend!r}. Set it to one of {', '.join(BACKENDS)}."
        )
    os.environ.update(ON[device])
    found = importlib.import_module(backend)
    keras = importlib.import_module("keras")
    if keras.backend.backend() != backend:
        raise pytest.UsageError(f"Keras runs on {keras.backend.backend()}, and not on {backend}.")
    if device == "gpu" and not has_gpu(backend, found):
        raise pytest.UsageError(f"{backend} finds no GPU.")


def has_gpu(backend, module):
    if backend == "torch":
        return module.cuda.is_available()
    if backend == "jax":
        return module.default_backend() == "gpu"
    return bool(module.config.list_physical_devices("GPU"))


@pytest.fixture(autouse=True)
def same_start():
    """Each test starts from the same names and seeds, whichever tests ran before it."""
    import keras

    keras.utils.clear_session(free_memory=False)
    keras.utils.set_random_seed(0)

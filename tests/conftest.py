"""The tests run on one backend and see no other; a missing one fails the whole run."""

import importlib
import os
import pkgutil
import sys
import zlib
from pathlib import Path

import pytest
from alone import hide
from quick import collect_rarely, compile_quickly

pytest.register_assert_rewrite("compared")  # whose assertions then say what they compare
# `benchmarks` lies beside `tests`. Last, so that `mlsystem` is the one that is installed.
sys.path.append(str(Path(__file__).parents[1]))
BACKENDS = ("jax", "torch", "tensorflow")
# Where tests marked `once` run. Two thirds of them run on torch, which compiles fastest.
TURNS = ("torch", "jax", "torch", "torch", "tensorflow", "torch")
# Numbers are compared to six digits, and a GPU multiplies with three unless it is told otherwise.
ON = {
    "cpu": {"CUDA_VISIBLE_DEVICES": "", "JAX_PLATFORMS": "cpu"},
    "gpu": {"JAX_DEFAULT_MATMUL_PRECISION": "highest", "NVIDIA_TF32_OVERRIDE": "0"},
}


def pytest_addoption(parser):
    parser.addoption("--backend", default=os.environ.get("KERAS_BACKEND"), help="what runs Keras")
    parser.addoption("--everywhere", action="store_true", help="run the tests of all backends here")
    parser.addoption("--device", choices=list(ON), default="cpu", help="what the tests run on")
    parser.addoption("--kills", type=int, default=1, help="how often a run is killed and resumed")


def pytest_configure(config):
    backend, device = config.getoption("backend"), config.getoption("device")
    if backend not in BACKENDS:
        raise pytest.UsageError(
            f"KERAS_BACKEND is {backend!r}. Set it, or --backend, to one of {', '.join(BACKENDS)}."
        )
    os.environ.update(ON[device], KERAS_BACKEND=backend)
    hide(*(name for name in BACKENDS if name != backend))
    found = importlib.import_module(backend)
    compile_quickly(backend)
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


def pytest_collection_modifyitems(config, items):
    """Leaves out the tests whose turn is on another backend."""
    if config.getoption("everywhere"):
        return
    here = (None, config.getoption("backend"))
    elsewhere = [item for item in items if turn(item) not in here]
    config.hook.pytest_deselected(items=elsewhere)
    items[:] = [item for item in items if turn(item) in here]
    config.elsewhere = len(elsewhere)


def turn(item):
    """The backend of a test marked `once` or `spread`; None for a test of every backend.

    That of `once` follows from the test's name alone. `spread` deals the cases of a test out to the
    backends in turn. A test that is also marked `each_backend` runs on each, and one that chooses
    its backends by `skipif` keeps them.
    """
    marks = {mark.name for mark in item.iter_markers()}
    if not marks & {"once", "spread"} or marks & {"each_backend", "skipif"}:
        return None
    if "spread" in marks:
        return BACKENDS[number(item) % len(BACKENDS)]
    name = f"{item.path.name}::{item.name}"
    return TURNS[zlib.crc32(name.encode()) % len(TURNS)]


def number(item):
    """The number of a case: the sum of its places in the lists that it is taken from."""
    places = dict(item.callspec.indices)
    for mark in item.iter_markers("parametrize"):  # names of one list share their place
        names = mark.args[0].split(",") if isinstance(mark.args[0], str) else mark.args[0]
        for name in names[1:]:
            del places[name.strip()]
    return sum(places.values())


def pytest_report_collectionfinish(config):
    if count := getattr(config, "elsewhere", 0):
        return f"{count} tests run on another backend; --everywhere runs them here too"
    return []


@pytest.fixture(autouse=True)
def same_start():
    """Each test starts from the same names and seeds, whichever tests ran before it."""
    import keras

    keras.utils.clear_session(free_memory=False)
    collect_rarely()  # with what the test before has left in the session
    keras.utils.set_random_seed(0)


@pytest.fixture(autouse=True)
def no_slow_machine(monkeypatch):
    """What `fit` prints does not depend on how fast this machine compiles."""
    from mlsystem import _long_work

    monkeypatch.setattr(_long_work, "AFTER", 3600.0)


@pytest.fixture
def backward_passes(monkeypatch):
    """Counts the backward passes that the engine takes, by the variables each goes into."""
    passes = []
    backend = os.environ["KERAS_BACKEND"]
    name, position = {
        "jax": ("linearized._transposed", 1),
        "torch": ("engine._backward", 1),
        "tensorflow": ("engine._backward", 2),
    }[backend]
    name = f"mlsystem.engine.{backend}.{name}"
    inner = pkgutil.resolve_name(name)

    def counted(*args):
        passes.append(len(args[position]))
        return inner(*args)

    monkeypatch.setattr(name, counted)
    return passes

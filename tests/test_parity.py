"""From the same weights, data and noise, the three backends take the same steps.

Needs jax, torch and tensorflow in one environment; each runs in a process of its own.
"""

import itertools
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

BACKENDS = ("jax", "torch", "tensorflow")
NAMES = ("vae", "gan", "wgan_gp", "dann", "byol")
SAVED = ("wgan_gp", "byol")
SCRIPT = Path(__file__).with_name("parity_systems.py")


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return tmp_path_factory.mktemp("parity")


@pytest.fixture(scope="module")
def results(folder):
    """What each backend wrote."""
    return run(folder, "results.npz", dict.fromkeys(BACKENDS, ()))


@pytest.fixture(scope="module")
def loaded(folder, results):
    """The losses after each file that another backend saved: `{backend: {file: losses}}`."""
    files = {b: [str(file) for file in sorted((folder / b).glob("*.keras"))] for b in BACKENDS}
    others = {b: [f for o in BACKENDS if o != b for f in files[o]] for b in BACKENDS}
    return run(folder, "loaded.npz", others)


def run(folder, name, files):
    """Runs the script on each backend, side by side, and reads what it wrote."""
    paths = {backend: folder / backend / name for backend in files}
    running = {backend: start(backend, paths[backend], files[backend]) for backend in files}
    ended = {backend: process.wait() for backend, process in running.items()}
    assert ended == dict.fromkeys(files, 0)
    return {backend: dict(np.load(path)) for backend, path in paths.items()}


def start(backend, path, files):
    # With more threads than cores, torch waits for its own.
    env = {"KERAS_BACKEND": backend, "CUDA_VISIBLE_DEVICES": "", "OMP_NUM_THREADS": "1"}
    path.parent.mkdir(exist_ok=True)
    return subprocess.Popen([sys.executable, str(SCRIPT), str(path), *files], env=os.environ | env)


@pytest.mark.parametrize("backend", BACKENDS[1:])
@pytest.mark.parametrize("name", NAMES)
def test_the_losses_agree(results, name, backend):
    ours, theirs = results["jax"][f"{name}_losses"], results[backend][f"{name}_losses"]
    assert ours.shape == theirs.shape and len(ours) == 20
    assert np.abs(ours).min(axis=0).max() > 0
    np.testing.assert_allclose(theirs, ours, rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("backend", BACKENDS[1:])
@pytest.mark.parametrize("name", NAMES)
def test_the_final_weights_agree(results, name, backend):
    ours, theirs = results["jax"][f"{name}_weights"], results[backend][f"{name}_weights"]
    np.testing.assert_allclose(theirs, ours, rtol=1e-4, atol=1e-6)


@pytest.mark.parametrize("backend, other", list(itertools.permutations(BACKENDS, 2)))
@pytest.mark.parametrize("name", SAVED)
def test_what_another_backend_saved_goes_on(folder, results, loaded, name, backend, other):
    ours = results[other][f"{name}_after"]
    theirs = loaded[backend][str(folder / other / f"{name}.keras")]
    assert ours.shape == theirs.shape and len(ours) == 20
    np.testing.assert_allclose(theirs, ours, rtol=1e-4, atol=1e-6)

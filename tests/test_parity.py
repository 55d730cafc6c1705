"""From the same weights, data and noise, the three backends take the same steps.

Needs jax, torch and tensorflow in one environment; each runs in a process of its own.
"""

import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

BACKENDS = ("jax", "torch", "tensorflow")
NAMES = ("vae", "gan", "wgan_gp", "dann", "byol")
SCRIPT = Path(__file__).with_name("parity_systems.py")


@pytest.fixture(scope="module")
def results(tmp_path_factory):
    """What each backend wrote; they run side by side."""
    folder = tmp_path_factory.mktemp("parity")
    paths = {backend: folder / f"{backend}.npz" for backend in BACKENDS}
    running = {backend: start(backend, path) for backend, path in paths.items()}
    assert {backend: process.wait() for backend, process in running.items()} == dict.fromkeys(
        BACKENDS, 0
    )
    return {backend: dict(np.load(path)) for backend, path in paths.items()}


def start(backend, path):
    env = os.environ | {"KERAS_BACKEND": backend, "CUDA_VISIBLE_DEVICES": ""}
    return subprocess.Popen([sys.executable, str(SCRIPT), str(path)], env=env)


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

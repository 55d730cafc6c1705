"""Several processes, or devices, train as one does with the same global batch."""

import functools
import json
import os

import keras
import numpy as np
import pytest
import systems_apart as apart
from event_files import events
from optional import needs, ship_only
from processes import run, started

# Torch compiles fastest. The others train what an engine decides.
NAMES = {"torch": list(apart.CASES), "jax": ["gan", "byol"], "tensorflow": ["gan", "byol"]}[
    keras.backend.backend()
]
# One of the batches holds a NaN.
pytestmark = pytest.mark.filterwarnings("ignore:The gradient of 'discriminator' is not finite")


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return tmp_path_factory.mktemp("apart")


@pytest.fixture(scope="module")
def texts(folder):
    """What the two processes print."""
    return run("systems_apart.py", folder, *NAMES)


@pytest.fixture(scope="module")
def both(folder, texts):
    """What each of them has in the end."""
    return [dict(np.load(folder / f"{index}.npz")) for index in (0, 1)]


@functools.cache
def alone(name):
    return apart.fit(name)


def check(name, found):
    weights, optimizers, history = alone(name)
    for ours, theirs in ((found[0], weights), (found[1], optimizers)):
        tolerance = 1e-3 if name == "byol" else 1e-5  # batch norm
        assert np.abs(ours - theirs).max() <= tolerance * np.abs(theirs).max()
    ours, theirs = json.loads(found[2].tobytes()), json.loads(history.tobytes())
    assert set(ours) == set(theirs)
    for log in theirs:
        np.testing.assert_allclose(ours[log], theirs[log], rtol=1e-4, atol=1e-6, err_msg=log)


def numbers(found, name):
    return [found[f"{name}_{i}"] for i in range(3)]


@pytest.mark.parametrize("name", NAMES)
def test_two_processes_train_as_one(both, name):
    first, second = (numbers(found, name) for found in both)
    for one, other in zip(first, second, strict=True):
        np.testing.assert_array_equal(one, other)  # to the last bit
    check(name, first)


def test_all_processes_predict_all_rows(both):
    for found in both:
        check_predicted(found)


@pytest.mark.skipif(keras.backend.backend() == "jax", reason="batch norm sees the global batch")
def test_batch_norm_uses_the_rows_of_each_process(tmp_path):
    run("systems_apart.py", tmp_path, BATCH_NORM="local")
    halves = np.split(apart.unlike().astype("float64"), 2)
    for index in (0, 1):
        found = np.load(tmp_path / f"{index}.npz")["normalized"]
        np.testing.assert_allclose(found, normalized(halves), rtol=1e-4, atol=1e-6)


def test_batch_norm_uses_the_global_batch(both):
    for found in both:
        expected = normalized([apart.unlike().astype("float64")])
        np.testing.assert_allclose(found["normalized"], expected, rtol=1e-4, atol=1e-5)


def normalized(parts):
    """What a batch norm is after one step of SGD, where each part has statistics of its own."""
    means, variances = ([f(part, axis=0) for part in parts] for f in (np.mean, np.var))
    outputs = [
        (x - mean) / np.sqrt(variance + 1e-3)
        for x, mean, variance in zip(parts, means, variances, strict=True)
    ]
    out = np.concatenate(outputs)
    errors = 2 * (out - np.concatenate(parts)) / out.size
    gamma, beta = 1 - 0.1 * (errors * out).sum(0), -0.1 * errors.sum(0)
    mean, variance = np.mean(means, axis=0), np.mean(variances, axis=0)
    return np.stack([gamma, beta, 0.5 * mean, 0.5 + 0.5 * variance])


def check_predicted(found):
    np.testing.assert_allclose(found["predicted"], apart.predicted(), rtol=1e-5, atol=1e-6)


def test_the_first_process_writes_and_shows(folder, texts):
    assert texts[0].count("Epoch 1/2") == len(NAMES)
    assert "Epoch" not in texts[1] and "s/step" not in texts[1]
    for name in NAMES:
        assert len((folder / f"{name}.csv").read_text().splitlines()) == 1 + apart.EPOCHS
        files = [path.name for path in (folder / name).glob("step-*")]
        assert files == ["step-0000000020.weights.h5"]
        scalars = events(folder / "runs" / name)[0]
        assert list(scalars["loss"]) == [5, 10, 15, 20]
    # A second run would have a folder of its own.
    assert {path.name for path in (folder / "runs").iterdir()} == set(NAMES)


@pytest.mark.skipif(keras.backend.backend() != "torch", reason="threads of a process group")
def test_no_thread_of_an_exchange_is_left_at_exit(texts):
    for text in texts:
        [line] = [line for line in text.splitlines() if line.startswith("threads:")]
        assert "gloo" not in line


@pytest.mark.once
def test_one_process_resumes_what_two_have_written(folder, both):
    longer = apart.fit("gan", epochs=3)
    resumed = apart.fit("gan", epochs=3, resume=folder / "gan")
    assert np.abs(resumed[0] - longer[0]).max() <= 1e-5 * np.abs(longer[0]).max()


@pytest.mark.once
def test_one_process_does_not_wait_for_ever():
    with started("resumable.py", "", "", 0, count=1, more=1, TIMEOUT="2") as running:
        text, _ = running[0].communicate(timeout=100)
    assert running[0].returncode > 0
    assert "Process 1 of 2 has not come" in text


@pytest.mark.skipif(keras.backend.backend() != "jax", reason="one process has one device")
@pytest.mark.parametrize(
    "name, sharded",
    [pytest.param("wgan_gp", "", marks=ship_only), ("nested", "vae/decoder")],
)
def test_one_process_trains_on_four_devices(tmp_path, name, sharded):
    flags = f"{os.environ.get('XLA_FLAGS', '')} --xla_force_host_platform_device_count=4"
    run("systems_apart.py", tmp_path, name, count=1, XLA_FLAGS=flags, SHARDED=sharded)
    found = dict(np.load(tmp_path / "0.npz"))
    check(name, numbers(found, name))
    check_predicted(found)
    if sharded:
        check_checkpoint(name, numbers(found, name), tmp_path / name)


def check_checkpoint(name, found, folder):
    """Checks that one device reads what four devices have written, each its part."""
    needs("orbax.checkpoint")
    [shards] = folder.glob("*.shards")
    assert shards.name == "step-0000000020.shards"
    assert not [path for path in folder.iterdir() if "tmp" in path.name]
    resumed = apart.fit(name, resume=folder)  # the run is complete: nothing is trained
    for ours, theirs in zip(resumed[:2], found[:2], strict=True):
        np.testing.assert_array_equal(ours, theirs)

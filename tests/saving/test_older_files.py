"""Files that version 0.1 wrote load, and training resumes from them."""

from pathlib import Path

import keras
import numpy as np
import pytest
from older_files import CHECKPOINT, GAN, X, Y, gan, numbers, table, train

import mlsystem as ml

FILES = Path(__file__).with_name("files_of_0_1")
EXPECTED = np.load(FILES / "expected.npz")


def loaded_whole():
    return keras.saving.load_model(FILES / "gan.keras")


def loaded_weights():
    system = gan().setup((X[:4], Y[:4]))
    system.load_weights(FILES / "gan.weights.h5")
    return system


@pytest.mark.parametrize("load", [loaded_whole, loaded_weights])
def test_what_was_saved_is_loaded(load):
    system = load()
    assert np.array_equal(numbers(system), EXPECTED["saved"])
    assert type(system) is GAN and type(system.generator) is ml.MLModel
    assert type(system.balance) is ml.balance.Uncertainty
    assert system.routing == gan().routing and system.update_every == {"judge": 2}
    for name, optimizer in gan().configure_optimizers().items():
        assert system.optimizers[name].get_config() == optimizer.get_config()


@pytest.mark.skipif(
    keras.backend.backend() != "torch", reason="a checkpoint resumes on its backend; that is torch"
)
def test_training_resumes_from_a_checkpoint():
    system, history = train(4, seed=1, resume=FILES / CHECKPOINT)
    # Other processors and versions of torch round sums in other ways.
    close = {"rtol": 1e-5, "atol": 1e-6}
    np.testing.assert_allclose(numbers(system), EXPECTED["resumed"], **close)
    np.testing.assert_allclose(table(history), EXPECTED["logs"], **close)

"""What JAX compiles before the first step of training."""

import logging
import threading

import keras
import numpy as np
import pytest

import mlsystem as ml

if keras.backend.backend() != "jax":
    pytest.skip("the other backends compile no single operations", allow_module_level=True)

import jax

from mlsystem.engine.jax.host_zeros import host_zeros


def test_zeros_of_optimizers_and_running_means_are_not_compiled(caplog):
    net = keras.Sequential([keras.Input((3,)), keras.layers.Dense(11), keras.layers.Dense(13)])
    system = ml.MLModel(net, loss="mse", optimizer="adam")
    x, y = np.zeros((2, 3), "float32"), np.zeros((2, 13), "float32")
    with jax.log_compiles(), caplog.at_level(logging.WARNING):
        system.fit(x, y, verbose=0)
    names = [line for line in caplog.messages if line.startswith("Compiling")]
    assert any("pure" in name for name in names)  # the step itself
    assert not any("broadcast_in_dim" in name for name in names)
    assert len(system.optimizer.variables) == 2 + 2 * 4


@pytest.mark.parametrize("dtype", ["float32", "bfloat16", "int32", "bool"])
def test_zeros_of_the_host_are_zeros_of_keras(dtype):
    with host_zeros():
        found = keras.Variable("zeros", shape=(2, 3), dtype=dtype)
    known = keras.Variable("zeros", shape=(2, 3), dtype=dtype)
    assert found.value.dtype == known.value.dtype and not found.value.weak_type
    assert np.array_equal(np.asarray(found.value), np.asarray(known.value))


def test_the_initializer_is_put_back():
    before = keras.initializers.Zeros.__call__
    with pytest.raises(KeyError), host_zeros():
        raise KeyError
    assert keras.initializers.Zeros.__call__ is before


def test_it_is_put_back_after_two_threads():
    before, began, ended = keras.initializers.Zeros.__call__, threading.Event(), threading.Event()

    def other():
        with host_zeros():
            began.set()
            ended.wait(5)

    thread = threading.Thread(target=other)
    with host_zeros():
        thread.start()
        began.wait(0.2)  # without a lock, the other thread replaces it here
    ended.set()
    thread.join()
    assert keras.initializers.Zeros.__call__ is before

"""Processes that do not find each other, were told different things, or leave devices idle."""

import threading

import keras
import numpy as np
import pytest
from processes import free_ports

import mlsystem as ml
from mlsystem.engine import engine
from mlsystem.engine.distribution import start
from mlsystem.engine.distribution.launch import Launch
from mlsystem.engine.distribution.meeting import meet


def test_an_unreachable_coordinator_is_an_error(monkeypatch):
    monkeypatch.setattr(start, "_check_no_model", lambda: None)  # other tests have made some
    address = f"127.0.0.1:{free_ports(1)[0]}"
    with pytest.raises(ConnectionError, match=r"Process 1 of 2 cannot reach the first process at"):
        ml.distribute(coordinator_address=address, num_processes=2, process_id=1, timeout=1)


@pytest.mark.once
def test_counts_that_do_not_match_are_an_error_on_both():
    address, errors = f"127.0.0.1:{free_ports(1)[0]}", {}

    def come(index, count):
        try:
            meet(Launch(index, count, address, 0, "A test"), 10)
        except ValueError as error:
            errors[index] = str(error)

    both = [threading.Thread(target=come, args=found) for found in ((0, 2), (1, 3))]
    for thread in both:
        thread.start()
    for thread in both:
        thread.join()
    assert "Process 0 was told that there are 2 processes, and process 1 that there" in errors[0]
    assert "Process 1 was told that there are 3 processes, and process 0 that there" in errors[1]


@pytest.mark.skipif(keras.backend.backend() != "tensorflow", reason="of TensorFlow")
def test_a_mirrored_strategy_is_an_error(monkeypatch):
    import tensorflow as tf

    class Mirrored:
        num_replicas_in_sync = 2

    model = ml.MLModel(keras.Sequential([keras.layers.Dense(3)]), loss="mse")
    monkeypatch.setattr(tf.distribute, "get_strategy", Mirrored)
    for method in (model.fit, model.evaluate, model.train_on_batch):
        with pytest.raises(ValueError, match="in the scope of a Mirrored with 2 replicas"):
            method(np.ones((4, 3)), np.ones((4, 3)))


@pytest.mark.skipif(keras.backend.backend() != "tensorflow", reason="of TensorFlow")
def test_idle_gpus_are_said(monkeypatch):
    import tensorflow as tf

    monkeypatch.setattr(tf.config, "list_physical_devices", lambda kind: ["one", "two", "three"])
    with pytest.warns(UserWarning, match="uses one GPU, and 2 more are here"):
        assert engine.distribution().local_devices() == 1

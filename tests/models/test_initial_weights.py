"""The initial weights of an ensemble are those of networks that are made one by one."""

import random
import threading

import keras
import numpy as np
import pytest
from keras import layers

from mlsystem.models import initial_weights


class Shifted(layers.Dense):
    """Sets a weight in `build`, so that its initializer does not tell the value."""

    def build(self, input_shape):
        super().build(input_shape)
        self.bias.assign(np.full(self.bias.shape, random.random()))


def plain():
    return [
        layers.Conv1D(4, 2, kernel_initializer="orthogonal"),
        layers.BatchNormalization(),
        layers.Dense(3, bias_initializer="random_normal"),
        layers.Dense(2),
    ]


def fixed():
    return [layers.Dense(2, kernel_initializer=keras.initializers.HeNormal(seed=5))]


def axes():  # the layer gives its initializer a seed, as those of `MultiHeadAttention` do
    return [layers.EinsumDense("abc,cd->abd", (None, 2))]


def gates():  # the initializer of an LSTM's bias is a function
    return [layers.LSTM(3)]


@pytest.mark.parametrize(
    "parts, made",
    [
        *[(plain, 1), (fixed, 3), (axes, 3), (gates, 3)],
        *[(lambda: [Shifted(2)], 3), (lambda: [layers.Dropout(0.5)], 3)],
    ],
    ids=["plain", "fixed", "axes", "gates", "own layer", "noise"],
)
def test_equal_to_networks_made_one_by_one(parts, made):
    config = keras.Sequential([keras.Input((5, 3)), *parts()]).get_config()
    calls = []

    def clone():
        calls.append(1)
        return keras.Sequential.from_config(config, {"Shifted": Shifted})

    def drawn():
        random.seed(0)  # Keras draws its seeds from here
        return initial_weights.stacked(clone, lambda model: model.variables, 3)

    found, count = drawn(), len(calls)
    random.seed(0)
    each = [[keras.ops.convert_to_numpy(v.value) for v in clone().variables] for _ in range(3)]
    assert count == made
    for mine, theirs in zip(found, zip(*each, strict=True), strict=True):
        assert mine.tobytes() == np.stack(theirs).tobytes()


def test_a_recording_ends():
    before = keras.Layer.add_weight
    with pytest.raises(KeyError), initial_weights.recorded():
        raise KeyError
    assert keras.Layer.add_weight is before


def test_recordings_of_two_threads_do_not_overlap():
    before, began, ended = keras.Layer.add_weight, threading.Event(), threading.Event()

    def other():
        with initial_weights.recorded():
            began.set()
            ended.wait(5)

    thread = threading.Thread(target=other)
    with initial_weights.recorded():
        thread.start()
        began.wait(0.2)  # a recording that does not wait for this one begins here
    ended.set()
    thread.join()
    assert keras.Layer.add_weight is before

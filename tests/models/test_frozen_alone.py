"""A layer frozen or thawed in mid-training, in a model that is trained alone.

The model is y = a b x with x = 1, its loss is (a b - 3)^2: da = 2 (a b - 3) b, db = 2 (a b - 3) a.
"""

import keras
import numpy as np
import pytest
from toys import number, ones

import mlsystem as ml

RATE = 0.05


class Factor(keras.layers.Layer):
    def build(self, shape):
        self.factor = self.add_weight(shape=(), initializer="ones")

    def call(self, x):
        return x * self.factor


class At(keras.callbacks.Callback):
    """Sets whether a layer is trained, at the end of some batches or the beginning of epochs."""

    def __init__(self, layer, batches=(), epochs=()):
        super().__init__()
        self.layer, self.batches, self.epochs = layer, dict(batches), dict(epochs)
        self.seen = 0

    def on_epoch_begin(self, epoch, logs=None):
        if epoch in self.epochs:
            self.layer.trainable = self.epochs[epoch]

    def on_train_batch_end(self, batch, logs=None):
        self.seen += 1
        if self.seen in self.batches:
            self.layer.trainable = self.batches[self.seen]


def expected(trained, momentum=0.0):
    """The factors after batches on which `a` and `b` are trained or not."""
    a, b = 1.0, 1.0
    va, vb = 0.0, 0.0
    for trains_a, trains_b in trained:
        da, db = 2 * (a * b - 3) * b, 2 * (a * b - 3) * a
        if trains_a:
            va = momentum * va - RATE * da
            a += va
        if trains_b:
            vb = momentum * vb - RATE * db
            b += vb
    return [a, b]


def fit(*events, frozen=(), **kwargs):
    """Two epochs of two batches; events are `(layer, kind, changes)`."""
    net = [Factor(), Factor()]
    for i in frozen:
        net[i].trainable = False
    model = ml.MLModel(keras.Sequential(net))
    model.compile(keras.optimizers.SGD(RATE, momentum=0.5), "mse", **kwargs)
    callbacks = [At(net[i], **{kind: changes}) for i, kind, changes in events]
    given = {"batch_size": 4, "epochs": 2, "shuffle": False, "verbose": 0}
    model.fit(ones(8), 3 * ones(8), callbacks=callbacks, **given)
    assert int(model.optimizer.iterations) == 4
    return [number(layer.factor) for layer in net]


def test_a_layer_is_thawed_between_setup_and_the_first_fit():
    net = [Factor(), Factor()]
    net[0].trainable = False
    model = ml.MLModel(keras.Sequential(net), loss="mse", optimizer=keras.optimizers.SGD(RATE))
    model.setup((ones(4), 3 * ones(4)))
    net[0].trainable = True
    model.fit(ones(4), 3 * ones(4), batch_size=4, verbose=0)
    found = [number(layer.factor) for layer in net]
    np.testing.assert_allclose(found, expected([(True, True)]), rtol=1e-5)


@pytest.mark.parametrize("width", [None, 2])
def test_adapters_may_come_between_setup_and_the_first_fit(width):
    net = keras.Sequential([keras.layers.Input((3,)), keras.layers.Dense(2)])
    model = ml.MLModel(net, loss="mse", optimizer=keras.optimizers.SGD(RATE))
    model.setup((np.ones((4, 3)), np.ones((4, 2))))
    if width:
        net.layers[0].enable_lora(width)
    before = [np.array(weight) for weight in net.get_weights()]
    model.fit(np.ones((4, 3)), np.ones((4, 2)), verbose=0)
    changed = [not np.array_equal(a, b) for a, b in zip(before, net.get_weights(), strict=True)]
    names = [weight.name for weight in net.weights]
    moved = {name for name, moves in zip(names, changed, strict=True) if moves}
    assert moved == ({"bias", "lora_kernel_b"} if width else {"bias", "kernel"})


@pytest.mark.parametrize("kwargs", [{}, {"run_eagerly": True}])
def test_a_layer_is_frozen_and_thawed_in_mid_training(kwargs):
    both, first, second = (True, True), (True, False), (False, True)
    # `b` is frozen after the first batch and thawed after the third: its velocity is kept.
    found = fit((1, "batches", {1: False, 3: True}), **kwargs)
    np.testing.assert_allclose(found, expected([both, first, first, both], 0.5), rtol=1e-5)
    # `a` is frozen from the start: its optimizer gets to know it.
    found = fit((0, "epochs", {1: True}), frozen=[0], **kwargs)
    np.testing.assert_allclose(found, expected([second, second, both, both], 0.5), rtol=1e-5)

"""A model or a system in which nothing is trained: its losses and metrics are computed."""

import warnings

import keras
import numpy as np
import pytest
from keras import layers, ops
from toys import TinyGAN, ones
from trained import weights

import mlsystem as ml

X = np.random.default_rng(0).normal(size=(8, 3)).astype("float32")
Y = X.sum(axis=1, keepdims=True)


def frozen(kind):
    """Batch norm, which moves, before a dense layer, which does not."""
    inputs = keras.Input((3,))
    hidden = layers.BatchNormalization(center=False, scale=False)(inputs)
    outputs = layers.Dense(1, kernel_initializer="ones", trainable=False)(hidden)
    model = kind(inputs, outputs)
    model.compile("sgd", loss="mse", metrics=["mae"])
    return model


def fitted(kind):
    model = frozen(kind)
    history = model.fit(X, Y, batch_size=4, epochs=2, shuffle=False, verbose=0).history
    return history, model.get_weights()


def test_a_model_alone_does_what_keras_does():
    with pytest.warns(UserWarning, match="has no trainable weights"):
        history, values = fitted(ml.MLModel)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        expected, kerass = fitted(keras.Model)
    assert history.keys() == expected.keys()
    for name in expected:
        np.testing.assert_allclose(history[name], expected[name], rtol=1e-5)
    for value, other in zip(values, kerass, strict=True):
        np.testing.assert_allclose(value, other, rtol=1e-5)
    assert abs(values[-2]).max() > 0  # the mean has moved


@pytest.mark.parametrize("eagerly", [False, True])
def test_a_system_says_so_and_logs_its_losses(eagerly):
    gan = TinyGAN()
    gan.generator.trainable = gan.discriminator.trainable = False
    gan.compile(run_eagerly=eagerly)
    with pytest.warns(UserWarning, match="no trainable.*'generator', 'discriminator'") as found:
        history = gan.fit(ones(), epochs=2, verbose=0).history
    assert sum("no trainable" in str(warning.message) for warning in found) == 1
    assert weights(gan) == [2.0, 3.0]
    assert history["generator_loss"] == pytest.approx([-6.0, -6.0])
    assert history["discriminator_loss"] == pytest.approx([3.0, 3.0])
    assert history["loss"] == pytest.approx([-3.0, -3.0])


class Counting(ml.MLSystem):
    """Learns by assignment, in a step of its own."""

    def __init__(self):
        super().__init__()
        self.dense = layers.Dense(1, trainable=False)
        self.mean = self.add_weight(shape=(), initializer="zeros", trainable=False)

    def forward(self, x):
        return self.dense(x)

    def train_step(self, data):
        self.mean.assign(ops.mean(data[0]))
        self.log("mean", self.mean)
        return self.get_metrics_result()


def test_a_step_of_ones_own_may_train_nothing():
    history = Counting().fit(ones(), verbose=0).history
    assert history["mean"] == [1.0]

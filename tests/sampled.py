"""A GAN of noise whose samples change all that a call may change, and all that training leaves."""

import random

import keras
import numpy as np
from compared import state
from keras import layers, ops
from toys import Drawing, Fooler, ones


class Normed(Fooler):
    """A generator whose statistics change when it is called in training mode."""

    def __init__(self):
        super().__init__(1.0)
        self.norm = layers.BatchNormalization()

    def forward(self, x, training=None):
        return super().forward(self.norm(x, training=training))


class Sampled(Drawing):
    """A GAN of noise, with batch normalization."""

    def __init__(self):
        super().__init__()
        self.generator = Normed()

    def forward(self, x, training=None):
        noise = keras.random.normal(ops.shape(x), seed=self.seed)
        fake = self.generator(noise, training=training)
        return {"real": self.discriminator(x), "fake": self.discriminator(fake)}


def images(gan):
    """A function that draws samples, and changes all that a call of a model may change."""

    def samples():
        keras.random.normal((2,))  # from the seed that all layers share
        np.random.rand()
        noise = keras.random.normal((4, 1), seed=gan.seed)
        return ops.reshape(gan.generator(noise, training=True), (1, 2, 2))

    return samples


def ended(callback=None, **given):
    """All that a training leaves, with the draws that come next."""
    keras.utils.clear_session(free_memory=False)
    keras.utils.set_random_seed(0)
    gan = Sampled()
    given = {"validation_data": (ones(),), "batch_size": 4, "verbose": 0, "epochs": 3} | given
    history = gan.fit(ones(16), callbacks=[callback(gan)] if callback else None, **given).history
    left = {"draw": ops.convert_to_numpy(keras.random.normal((2,))), "numpy": np.random.rand()}
    left["python"] = random.random()  # gives the next layer its seed
    return history, state(gan) | left

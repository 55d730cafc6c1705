"""Small systems and data for the blocks of code in the documentation and in docstrings."""

import keras
import numpy as np
from keras import layers, ops

import mlsystem as ml

bce = keras.losses.BinaryCrossentropy(from_logits=True)
WIDTH, LATENT = 8, 4


def array(rows=64, columns=WIDTH, seed=0):
    return np.random.default_rng(seed).uniform(size=(rows, columns)).astype("float32")


images, held_out = array(), array(32, seed=1)


class Generator(ml.MLModel):
    def loss(self, x, y, outputs):
        return bce(ops.ones_like(outputs["fake"]), outputs["fake"])


class Discriminator(ml.MLModel):
    def loss(self, x, y, outputs):
        real, fake = outputs["real"], outputs["fake"]
        return {"real": bce(ops.ones_like(real), real), "fake": bce(ops.zeros_like(fake), fake)}


class GAN(ml.MLSystem):
    """The GAN of the start page, in small."""

    routing = "own"

    def __init__(self, generator_net=None, discriminator_net=None, latent=LATENT):
        super().__init__()
        self.latent = latent
        self.generator = Generator(generator_net or net(WIDTH))
        self.discriminator = Discriminator(discriminator_net or net(1))
        self.seed = keras.random.SeedGenerator(0)

    def forward(self, images, training=None):
        z = keras.random.normal((ops.shape(images)[0], self.latent), seed=self.seed)
        fake = self.generator(z, training=training)
        return {"real": self.discriminator(images), "fake": self.discriminator(fake)}


class Encoder(ml.MLModel):
    def loss(self, x, y, outputs):
        mean, log_var = outputs["mean"], outputs["log_var"]
        return {"kl": 0.5 * ops.sum(ops.exp(log_var) + mean**2 - 1 - log_var, axis=-1)}


class Decoder(ml.MLModel):
    def loss(self, x, y, outputs):
        nats = keras.losses.binary_crossentropy(x, outputs["logits"], from_logits=True)
        return {"reconstruction": WIDTH * nats}


class VAE(ml.MLSystem):
    """The VAE of the start page, in small."""

    def __init__(self):
        super().__init__()
        self.encoder, self.decoder = Encoder(net(2 * LATENT)), Decoder(net(WIDTH))
        self.seed = keras.random.SeedGenerator(0)

    def forward(self, images):
        mean, log_var = ops.split(self.encoder(images), 2, axis=-1)
        noise = keras.random.normal(ops.shape(mean), seed=self.seed)
        logits = self.decoder(mean + ops.exp(0.5 * log_var) * noise)
        return {"mean": mean, "log_var": log_var, "logits": logits}


def net(outputs):
    return keras.Sequential([layers.Dense(8, activation="relu"), layers.Dense(outputs)])


def names(text):
    """Returns the names that a docstring uses and does not define."""
    return {}

"""Training a `TinyGAN` with callbacks, and what comes out of it, worked out by hand."""

import keras
import numpy as np
import pytest
from toys import Fooler, Judge, Target, TinyGAN, number, ones

import mlsystem as ml

TOYS = {cls.__name__: cls for cls in (Fooler, Judge, TinyGAN)}


def train(system, *callbacks, epochs=3, **given):
    """The history of some epochs of two batches with mean 1, and a validation after each."""
    given = {"x": ones(8), "validation_data": (ones(),), "batch_size": 4, "verbose": 0} | given
    return system.fit(**given, epochs=epochs, callbacks=list(callbacks)).history


def weights(gan):
    return [number(gan.generator.weight), number(gan.discriminator.weight)]


def after(batches, rates=(0.1, 0.01)):
    """The weights of the GAN after some batches with mean 1: see `TinyGAN`."""
    g, d = 2.0, 3.0
    for _ in range(batches):
        g, d = g + rates[0] * d, d - rates[1] * (g - 1)
    return [g, d]


def approx(expected):
    return pytest.approx(expected, rel=1e-5)


def loaded(path, into=None):
    gan = into or TinyGAN(0.0, 0.0)
    gan.setup(ones()).load_weights(path)
    return weights(gan)


def averaging(*names):
    """A GAN of which some optimizers average; the average is that of the last two weights."""
    gan, rates = TinyGAN(), {"generator": 0.1, "discriminator": 0.01}
    gan.compile(
        {
            name: keras.optimizers.SGD(rate, use_ema=name in names, ema_momentum=0.5)
            for name, rate in rates.items()
        }
    )
    return gan


def averages(batches, names):
    """The averages after some batches, and in their place the weights of who has none."""
    found = np.array(after(1))
    for batch in range(2, batches + 1):
        found = (found + after(batch)) / 2
    has = [name in names for name in ("generator", "discriminator")]
    return np.where(has, found, after(batches))


class Apart(ml.MLSystem):
    """Two models that each see a column of their own."""

    routing = "own"

    def __init__(self):
        super().__init__()
        self.a, self.b = Target(), Target()

    def forward(self, x):
        return {"a": self.a(x[:, :1]), "b": self.b(x[:, 1:])}


class Around(ml.MLSystem):
    def __init__(self):
        super().__init__()
        self.inner = Apart()

    def forward(self, x):
        return {"inner": self.inner(x)}

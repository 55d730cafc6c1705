"""A training run that goes on from its last checkpoint each time it is started.

    python tests/killed.py FOLDER EPOCHS OUT

It says "training" after each batch, and leaves all variables and logs in OUT when it has come to
the end.
"""

import json
import sys
import time
from pathlib import Path

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


class Noisy(ml.MLData):
    """Streams, and noise from generators of Keras and of NumPy on all sets."""

    def __init__(self):
        super().__init__()
        self.seed, self.rng = keras.random.SeedGenerator(3), np.random.default_rng(0)

    def train(self):
        return ml.Streams({"near": images(), "far": 2 * images(40)}, {"near": 8, "far": 4})

    def validation(self):
        return {name: ml.Streams({"near": images(8), "far": images(8)}, 4) for name in "ab"}

    def transform(self, x):
        noise = keras.random.normal((1, 3), seed=self.seed) + float(self.rng.normal())
        return {name: part + 0.1 * ops.convert_to_numpy(noise) for name, part in x.items()}


class Both(System):
    """Two streams in one batch."""

    def forward(self, x, training=None):
        return super().forward(_together(x), training=training)

    def compute_losses(self, x, y, outputs):
        return super().compute_losses(_together(x), y, outputs)

    def configure_optimizers(self):
        accumulating = keras.optimizers.Adam(0.01, gradient_accumulation_steps=2)
        return super().configure_optimizers() | {"denoiser": accumulating}


def _together(x):
    return ops.concatenate([x["near"], x["far"]])


class Slow(keras.callbacks.Callback):
    """Says that training goes on, and leaves time to be killed in."""

    def on_train_batch_end(self, batch, logs=None):
        print("training", flush=True)
        time.sleep(0.005)


def train(folder, epochs, callbacks=()):
    """Trains with all that a run depends on; returns all variables, the logs and the CSV file."""
    keras.utils.set_random_seed(0)
    system, folder = Both(), Path(folder)
    plateau = keras.callbacks.ReduceLROnPlateau("loss", factor=0.9, patience=2, min_lr=1e-3)
    history = system.fit(
        Noisy(),
        epochs=epochs,
        validation_every=7,
        verbose=0,
        callbacks=[
            ml.callbacks.For("denoiser", plateau),
            rows := keras.callbacks.CSVLogger(folder / "rows.csv"),
            ml.callbacks.Checkpoint(folder, every=3, keep=2, async_write=True),
            *callbacks,
        ],
        resume=folder,
    )
    logs = json.dumps([history.history, history.validations], default=float).encode()
    rows.csv_file.close()
    texts = logs, (folder / "rows.csv").read_bytes()
    return [*state(system), *(np.frombuffer(text, "uint8") for text in texts)]


def state(system):
    """All variables of a system, as arrays."""
    variables = [*system.variables, *system.optimizer.variables]
    return [np.array(ops.convert_to_numpy(variable)) for variable in variables]


if __name__ == "__main__":
    folder, epochs, out = sys.argv[1:]
    np.savez(out, *train(folder, int(epochs), [Slow()]))

"""A run of several processes that resumes from its last checkpoint each time it is started.

    python resumable.py FOLDER OUT DROPOUT

Each process leaves its weights and losses in OUT/INDEX.npz when the run is complete. The process
whose number is in the variable HANGS stops in the second epoch. It says so and waits to be killed.
"""

import os
import sys
import time
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parents[1]))

from alone import hide
from quick import compile_quickly

if __name__ == "__main__":
    compile_quickly(os.environ["KERAS_BACKEND"])
    hide(*({"jax", "torch", "tensorflow"} - {os.environ["KERAS_BACKEND"]}))

import keras

import mlsystem as ml

if __name__ == "__main__":
    ml.distribute(timeout=float(os.environ.get("TIMEOUT", 60)))

import numpy as np
from keras import layers, ops

EPOCHS = 4  # of five batches each


class Denoiser(ml.MLModel):
    def loss(self, x, y, outputs):
        return ops.mean((outputs["clean"] - x) ** 2)


class Critic(ml.MLModel):
    def loss(self, x, y, outputs):
        return ops.mean(outputs["score"] ** 2) + ops.mean((outputs["clean"] - x) ** 2)


class System(ml.MLSystem):
    """Two models that follow losses of their own, with an average."""

    routing = "own"

    def __init__(self, dropout):
        super().__init__()
        clean = [layers.Dense(8, "tanh"), layers.Dropout(dropout), layers.Dense(3)]
        score = [layers.Dense(1)]
        self.denoiser = Denoiser(keras.Sequential(clean), optimizer=keras.optimizers.Adam(0.01))
        self.critic = Critic(keras.Sequential(score), optimizer=keras.optimizers.SGD(0.05, 0.9))
        self.average = ml.EMA(self.denoiser, 0.9)

    def forward(self, x, training=None):
        clean = self.denoiser(x, training=training)
        return {"clean": clean, "score": self.critic(clean, training=training)}


class Hang(keras.callbacks.Callback):
    """Stops after some batches, for ever."""

    def __init__(self, batches):
        super().__init__()
        self.left = batches

    def on_train_batch_end(self, batch, logs=None):
        self.left -= 1
        if self.left == 0:
            print("hangs", flush=True)
            time.sleep(600)


def train(folder, dropout=0.0):
    """Trains from the last checkpoint to the end. Returns the weights and the losses."""
    keras.utils.set_random_seed(4)
    system = System(dropout)
    x = np.random.default_rng(0).normal(size=(40, 3)).astype("float32")
    callbacks = [ml.callbacks.Checkpoint(folder, every=3)]
    if os.environ.get("HANGS") == str(ml.process_index()):
        callbacks.append(Hang(9))
    given = {"batch_size": 8, "epochs": EPOCHS, "verbose": 0}
    history = system.fit(x, **given, callbacks=callbacks, resume=folder).history
    weights = [np.ravel(ops.convert_to_numpy(weight)) for weight in system.weights]
    return np.concatenate(weights), np.array([history[name] for name in sorted(history)])


if __name__ == "__main__":
    weights, losses = train(sys.argv[1], float(sys.argv[3]))
    out = Path(sys.argv[2]) / f"{ml.process_index()}.npz"
    out.parent.mkdir(exist_ok=True)
    np.savez(out, weights=weights, losses=losses)

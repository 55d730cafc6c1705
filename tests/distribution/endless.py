"""Trains for ever in several processes, and says so after each batch."""

# ruff: noqa: E402

import os
import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parents[1]))

from alone import hide

hide(*({"jax", "torch", "tensorflow"} - {os.environ["KERAS_BACKEND"]}))

import mlsystem as ml

ml.distribute(timeout=float(os.environ.get("TIMEOUT", 60)))

import keras
import numpy as np


class Say(keras.callbacks.Callback):
    def on_train_batch_end(self, batch, logs=None):
        print("training", flush=True)


model = ml.MLModel(keras.Sequential([keras.layers.Dense(3)]), loss="mse")
x = np.ones((8, 3), "float32")
model.fit(x, x, batch_size=4, epochs=10**9, verbose=0, callbacks=[Say()])

"""Runs that are interrupted, to be resumed: what ends them, and what they train."""

import keras
import numpy as np
from killed import images, state

import mlsystem as ml

BATCH = 16


class Interrupted(Exception):
    pass


class Interrupt(keras.callbacks.Callback):
    """Ends a fit in the middle, after a number of batches."""

    def __init__(self, batches):
        super().__init__()
        self.left = batches

    def on_train_batch_end(self, batch, logs=None):
        self.left -= 1
        if self.left == 0:
            raise Interrupted


class Shuffled(keras.utils.PyDataset):
    """Shuffles an order of its own by NumPy's generator, and adds noise by one of its own."""

    def __init__(self):
        super().__init__()
        self.order, self.noise = np.arange(64), np.random.default_rng(3)

    def __len__(self):
        return 4

    def __getitem__(self, i):
        rows = images()[self.order[i * BATCH : (i + 1) * BATCH]]
        return rows + 0.1 * self.noise.normal(size=rows.shape).astype("float32")

    def on_epoch_end(self):
        np.random.shuffle(self.order)


ROWS = np.random.default_rng(5).normal(size=(20, 3)).astype("float32")


def small(folder, callbacks=(), data=None, stop=None, epochs=3, every=1, **given):
    """Trains one dense layer, eagerly, on batches of 4 rows; returns its variables."""
    keras.utils.set_random_seed(0)
    model = ml.MLModel(keras.Sequential([keras.layers.Dense(1)]), loss="mse")
    model.compile(keras.optimizers.SGD(0.05), run_eagerly=True)
    last = [ml.callbacks.Checkpoint(folder, every=every), *([Interrupt(stop)] if stop else [])]
    data = {"x": ROWS, "y": ROWS[:, :1], "batch_size": 4} if data is None else {"x": data}
    given = {"epochs": epochs, "verbose": 0, "resume": folder} | given
    model.fit(**data, **given, callbacks=[*callbacks, *last])
    return state(model)

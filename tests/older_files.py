"""What version 0.1 of mlsystem trained to write the files in `saving/files_of_0_1`.

They were written on torch, with the oldest Keras that the package allows, by

    python -c "import older_files; older_files.write('saving/files_of_0_1')"

and are never written again: later versions are to load what this one wrote.
"""

import contextlib
from pathlib import Path

import keras
import numpy as np
from interrupted import Interrupt, Interrupted
from keras import layers, ops

import mlsystem as ml

registered = keras.saving.register_keras_serializable("older")
CHECKPOINT = "step-0000000010.weights.h5"  # after 2 epochs and 2 batches
X = np.random.default_rng(0).normal(size=(16, 3)).astype("float32")
Y = X**2


@registered
class Judge(ml.MLModel):
    def loss(self, x, y, outputs):
        real, fake = (outputs["real"] - 1) ** 2, outputs["fake"] ** 2
        return {"real": ops.mean(real), "fake": ops.mean(fake)}


@registered
class GAN(ml.MLSystem):
    """Noise, batch norm, an average and a balance."""

    def __init__(self, generator, judge, balance):
        super().__init__()
        self.generator, self.balance = generator, balance
        self.judge = Judge(judge, optimizer=keras.optimizers.SGD(0.01))
        self.average = ml.EMA(self.generator, 0.9)
        self.seed = keras.random.SeedGenerator(3)
        self.update_every = {"judge": 2}
        self.routing = {
            "generator": {"generator": 1.0, "judge_fake": -0.5},
            "judge": {"judge": 1.0},
        }

    def forward(self, x, training=None):
        noise = keras.random.normal(ops.shape(x), seed=self.seed)
        fake = self.generator(x + noise, training=training)
        return {"generator": fake, "real": self.judge(x), "fake": self.judge(fake)}


def gan():
    """A system that is not trained yet."""
    norm = layers.BatchNormalization(center=False, scale=False)
    net = keras.Sequential([layers.Dense(3, use_bias=False), norm])
    adam = keras.optimizers.Adam(0.01, beta_1=0.5)
    generator = ml.MLModel(net, loss="mse", metrics=["mae"], optimizer=adam)
    balance = ml.balance.Uncertainty(["generator", "judge"], "sgd")
    return GAN(generator, layers.Dense(1, use_bias=False), balance)


class Noisy(ml.MLData):
    """The rows, with noise from generators of Keras and of NumPy."""

    def __init__(self):
        super().__init__(batch_size=4)
        self.seed, self.rng = keras.random.SeedGenerator(5), np.random.default_rng(6)

    def train(self):
        return X, Y

    def validation(self):
        return X[:4], Y[:4]

    def transform(self, x, y):
        noise = keras.random.normal((1, 3), seed=self.seed) + float(self.rng.normal())
        return x + 0.1 * ops.convert_to_numpy(noise), y


def train(epochs, *callbacks, seed=0, **given):
    """The system after some epochs, and what was logged."""
    keras.utils.clear_session()
    keras.utils.set_random_seed(seed)
    plateau = keras.callbacks.ReduceLROnPlateau("loss", 0.5, patience=1, min_delta=0.1)
    callbacks = [ml.callbacks.For("generator", plateau), *callbacks]
    system = gan()
    history = system.fit(Noisy(), epochs=epochs, verbose=0, callbacks=callbacks, **given)
    return system, history.history


def numbers(system):
    """All that training goes on from: weights, seeds, optimizers and the balance, in one array."""
    running = {id(variable) for variable in system.metrics_variables}
    own = [variable for variable in system.variables if id(variable) not in running]
    found = [*own, *system.optimizer.variables, *system.balance.variables]
    return np.concatenate([np.ravel(ops.convert_to_numpy(v)).astype("float64") for v in found])


def table(history):
    """The logs of each epoch, in the order of their names."""
    return np.array([history[name] for name in sorted(history)])


def write(folder):
    """Writes the files, and beside them what is to be found after loading and resuming them."""
    folder = Path(folder)
    with contextlib.suppress(Interrupted):
        train(4, ml.callbacks.Checkpoint(folder, every=5), Interrupt(12))
    whole, history = train(4)
    system, _ = train(2)
    system.save(folder / "gan.keras")
    system.save_weights(folder / "gan.weights.h5")
    found = {"saved": numbers(system), "resumed": numbers(whole), "logs": table(history)}
    np.savez(folder / "expected.npz", **found)

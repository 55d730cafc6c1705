"""From one seed, training goes the same way twice, bit for bit: in a process, and in another."""

import hashlib
import json
import os
import subprocess
import sys
from pathlib import Path

import keras
import numpy as np
from keras import layers, ops
from quick import compile_quickly

import mlsystem as ml

# An eager step is the same Python on each backend, and quick on torch.
WAYS = {"compiled": {}}
if keras.backend.backend() == "torch":
    WAYS["eager"] = {"run_eagerly": True}
RNG = np.random.default_rng(0)
X = RNG.normal(size=(40, 7)).astype("float32")


def net(units):
    """Nothing in it has a seed of its own."""
    hidden = [layers.Dense(16, activation="tanh"), layers.Dropout(0.3)]
    return ml.MLModel(keras.Sequential([*hidden, layers.Dense(units)]))


class Noisy(ml.MLSystem):
    """Noise, dropout, and more losses than one, some of them in terms."""

    def __init__(self):
        super().__init__()
        self.encoder, self.decoder = net(3), net(7)
        self.seed = keras.random.SeedGenerator()

    def forward(self, x, training=None):
        code = self.encoder(x, training=training)
        noise = keras.random.normal(ops.shape(code), seed=self.seed)
        return {"encoder": code, "decoder": self.decoder(code + noise, training=training)}

    def compute_losses(self, x, y, outputs):
        far = ops.mean((outputs["decoder"] - x) ** 2)
        spread = {"even": ops.mean(outputs["encoder"], axis=-1) ** 2, "odd": 0.1 * ops.abs(far - 1)}
        return {"decoder": far, "encoder": ops.mean(outputs["encoder"] ** 2), "spread": spread}


def run(way):
    """What a training leaves: all numbers of its history, and a digest of all variables."""
    keras.utils.clear_session(free_memory=False)
    keras.utils.set_random_seed(0)
    system = Noisy()
    system.compile(**WAYS[way])
    history = system.fit(X, batch_size=16, epochs=2, verbose=0).history
    drawn = keras.random.normal((1,)), keras.random.normal((1,), seed=keras.random.SeedGenerator())
    held = [*system.variables, *system.optimizer.variables, *drawn]
    values = [np.ascontiguousarray(ops.convert_to_numpy(value)).tobytes() for value in held]
    numbers = {name: [float(v).hex() for v in row] for name, row in history.items()}
    return [numbers, hashlib.sha256(b"".join(values)).hexdigest()]


def fresh(hash_seed):
    """What another process finds, in which sets of names come in an order of its own."""
    path = os.pathsep.join(
        [
            str(Path(ml.__file__).parents[1]),
            str(Path(__file__).parents[1]),
            os.environ.get("PYTHONPATH", ""),
        ]
    )
    env = {**os.environ, "PYTHONHASHSEED": hash_seed, "PYTHONPATH": path}
    done = subprocess.run([sys.executable, __file__], env=env, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout.splitlines()[-1])


def test_training_goes_the_same_way_twice_and_in_another_process():
    first = {way: run(way) for way in WAYS}
    assert run("compiled") == first["compiled"]
    assert first == fresh("1")


if __name__ == "__main__":
    compile_quickly(keras.backend.backend())
    print(json.dumps({way: run(way) for way in WAYS}))

"""Systems that are trained by several processes, or by one, on the same global batches.

    python systems_apart.py FOLDER CASE...

Each process leaves what it has in FOLDER/INDEX.npz. Noise comes with the data, so that the numbers
do not depend on the number of processes.
"""

import atexit
import json
import os
import sys
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

    def say_threads():
        """Says which threads of a backend are left when the interpreter exits."""
        found = Path("/proc/self/task").glob("*/comm")
        print("threads:", *sorted({path.read_text().strip() for path in found}))

    atexit.register(say_threads)  # runs after what ml.distribute registers
    layouts = None
    if member := os.environ.get("SHARDED"):
        mesh = keras.distribution.DeviceMesh((2, 2), ("batch", "model"))
        layout = keras.distribution.LayoutMap(mesh)
        layout["dense.*kernel"], layout["dense.*bias"] = (None, "model"), ("model",)
        layouts = {member: layout}
    ml.distribute(layouts, batch_norm=os.environ.get("BATCH_NORM", "sync"))

import numpy as np
import parity_systems as parity
from keras import layers, ops

EPOCHS = 2  # of ten batches each
ROWS = 10 * parity.BATCH


class GAN(parity.GAN):
    """No batch norm, a log of its own, an update under a condition, and a row that is NaN."""

    update_when = {"discriminator": lambda losses: losses["discriminator"] > 1.38}  # noqa: RUF012

    def __init__(self):
        super().__init__()
        self.generator = parity.member(parity.mlp(16, parity.FEATURES))

    def compute_losses(self, x, y, outputs):
        self.log("real", outputs["real"])
        return super().compute_losses(x, y, outputs)


class VAE(parity.VAE):
    """With regularizers, a named term, accumulated gradients and a balance."""

    def __init__(self):
        super().__init__()
        hidden = layers.Dense(16, "tanh", kernel_regularizer="l2")
        self.decoder = parity.member(keras.Sequential([hidden, layers.Dense(parity.FEATURES)]))
        self.balance = ml.balance.PCGrad()

    def compute_losses(self, x, y, outputs):
        found = super().compute_losses(x, y, outputs)
        return found | {"decoder": {"again": found["decoder"]}}


class BYOL(parity.BYOL):
    """Batch norm, an average, and a model that is updated on every second batch."""

    update_every = {"predictor": 2}  # noqa: RUF012


class Outer(ml.MLSystem):
    """A system in a system, with metrics."""

    def __init__(self):
        super().__init__()
        self.vae, self.label = parity.VAE(), ml.MLModel(parity.mlp(8, 3))

    def forward(self, x, training=None):
        found = self.vae(x, training=training)
        return {"vae": found, "label": self.label(found["mean"])}

    def compute_losses(self, x, y, outputs):
        given = keras.losses.sparse_categorical_crossentropy(y, outputs["label"], from_logits=True)
        return {"vae": self.vae.loss(x, y, outputs["vae"]), "label": given}


class Contrast(ml.MLModel):
    """A model alone, whose loss compares all samples of a batch."""

    def loss(self, x, y, outputs):
        every = ml.gather(outputs)
        return ops.mean((every - ops.mean(every, axis=0)) ** 2) + ops.mean((outputs - x) ** 2)


def contrast():
    return Contrast(parity.mlp(8, parity.FEATURES))


CASES = {
    "gan": lambda: (GAN(), {"optimizer": keras.optimizers.SGD(0.05, momentum=0.9)}),
    "wgan_gp": lambda: (
        parity.WGANGP(),
        {"optimizer": keras.optimizers.Adam(1e-3, global_clipnorm=0.1)},
    ),
    "vae": lambda: (
        VAE(),
        {"optimizer": keras.optimizers.Adam(1e-3, gradient_accumulation_steps=2)},
    ),
    "byol": lambda: (BYOL(), {}),
    "nested": lambda: (Outer(), {"metrics": {"label": ["accuracy"]}}),
    "contrast": lambda: (
        contrast(),
        {"optimizer": keras.optimizers.SGD(0.05), "metrics": ["mae"], "run_eagerly": True},
    ),
}


def data_of(name, rows=ROWS):
    x, y = keras.tree.map_structure(lambda a: a[:rows], parity.data())
    if name == "gan":
        x["data"][5 * parity.BATCH + 1] = np.nan
    return (x["data"], x["data"]) if name == "contrast" else (x, y)


def made(name):
    system, given = CASES[name]()
    system.compile(**given)
    system.setup(data_of("contrast" if name == "contrast" else "", parity.BATCH))
    if name != "contrast":
        parity.give_weights(system)
        return system
    rng = np.random.default_rng(3)
    for weight in system.weights:
        weight.assign(0.3 * rng.normal(size=weight.shape))
    return system


def fit(name, folder=None, seed=7, epochs=EPOCHS, **given):
    """Trains on shuffled batches, and evaluates on batches that do not divide."""
    system = made(name)
    keras.utils.set_random_seed(seed)  # the first process decides
    if name in ("gan", "nested", "contrast"):
        rows = (2 if name == "gan" else 1) * parity.BATCH + 9
        given["validation_data"] = data_of("contrast" if name == "contrast" else "", rows)
    if folder is not None:
        given |= {"callbacks": [keras.callbacks.CSVLogger(folder / f"{name}.csv")], "verbose": 2}
        given["callbacks"].append(ml.callbacks.Checkpoint(folder / name))
        given["callbacks"].append(ml.callbacks.Log("tensorboard", folder / "runs" / name, every=5))
    given = {"batch_size": parity.BATCH, "epochs": epochs, "verbose": 0} | given
    history = system.fit(*data_of(name), **given).history
    text = json.dumps(history, default=float)
    state = [np.ravel(ops.convert_to_numpy(v)) for v in system.optimizer.variables]
    return parity.numbers(system), np.concatenate(state), np.frombuffer(text.encode(), "u1")


def predicted():
    """Predicts batches that do not divide, and one batch."""
    model, (x, _) = made("contrast"), data_of("contrast", 2 * parity.BATCH + 5)
    first = model.predict(x, batch_size=parity.BATCH, verbose=0)
    return np.concatenate([first, model.predict_on_batch(x[:3])])


def unlike():
    """A batch whose halves have different means and variances."""
    x = np.random.default_rng(5).normal(size=(8, 3)).astype("float32")
    return np.concatenate([x[:4], 3 * x[4:] + 5])


def normalized():
    """Trains a batch norm for one step. Returns its weights and its statistics."""
    layer, x = layers.BatchNormalization(momentum=0.5), unlike()
    model = ml.MLModel(keras.Sequential([layer]), loss="mse", optimizer=keras.optimizers.SGD(0.1))
    model.fit(x, x, batch_size=8, shuffle=False, verbose=0)
    found = (layer.gamma, layer.beta, layer.moving_mean, layer.moving_variance)
    return np.stack([ops.convert_to_numpy(variable) for variable in found])


def main(folder, names):
    index, found = ml.process_index(), {"predicted": predicted(), "normalized": normalized()}
    for name in names:
        numbers = fit(name, Path(folder), seed=7 + index)
        found |= {f"{name}_{i}": array for i, array in enumerate(numbers)}
    np.savez(Path(folder) / f"{index}.npz", **found)


def collected_by_a_check():
    """Whether looking for NaN collects a gradient that is split over devices."""
    import jax

    from mlsystem.engine import engine

    mesh = keras.distribution.distribution().device_mesh.backend_mesh
    split = jax.sharding.NamedSharding(mesh, jax.sharding.PartitionSpec(None, "model"))
    gradients = [jax.device_put(np.ones((4, 8), "float32"), split)]
    return "all-gather" in jax.jit(engine.all_finite).lower(gradients).compile().as_text()


def check_bytes():
    """Checks that a compiled step sums each gradient over the devices, once for each call.

    The discriminator is called on real and on fake images. Losses are two more numbers.
    """
    sys.path.insert(0, str(Path(__file__).parents[2]))
    from benchmarks.on_paper.program import Program, cost, count, mesh
    from benchmarks.on_paper.systems import GAN, gan_batch

    system = GAN(32)
    program = Program(system, gan_batch)
    found = cost(program.lower(mesh(4), 8)).collectives
    made, judged = (count(m.trainable_weights) for m in (system.generator, system.discriminator))
    assert found == {"all-reduce": 4 * (made + 2 * judged + 2)}


if __name__ == "__main__":
    main(sys.argv[1], sys.argv[2:])
    if layouts is not None:
        assert not collected_by_a_check()
    elif keras.backend.backend() == "jax" and ml.process_count() == 1:
        check_bytes()

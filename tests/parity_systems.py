"""Five systems whose weights, data and noise come from NumPy, so that backends can be compared.

Run as a script, it trains each for 20 steps and writes losses and final weights:
`KERAS_BACKEND=jax python tests/parity_systems.py results.npz`. Beside that file it saves some of
the systems, which it then trains for 20 steps more; given these files (`more.npz byol.keras`), it
takes those steps from there.
"""

import sys
from pathlib import Path

import keras
import numpy as np
from keras import layers, ops

import mlsystem as ml

STEPS, BATCH, FEATURES, LATENT = 20, 16, 12, 4
SAVED = ("wgan_gp", "byol")
registered = keras.saving.register_keras_serializable("parity")
bce = keras.losses.BinaryCrossentropy(from_logits=True)


def adam():
    return keras.optimizers.Adam(1e-3, beta_1=0.5)


def mlp(*units):
    hidden = [layers.Dense(n, activation="tanh") for n in units[:-1]]
    return keras.Sequential([*hidden, layers.Dense(units[-1])])


@registered
class Member(ml.MLModel):
    """A net whose system says what it is to blame for."""


def member(net):
    return Member(net, optimizer=adam())


class VAE(ml.MLSystem):
    def __init__(self):
        super().__init__()
        self.encoder, self.decoder = member(mlp(16, 2 * LATENT)), member(mlp(16, FEATURES))

    def forward(self, x, training=None):
        mean, log_var = ops.split(self.encoder(x["data"], training=training), 2, axis=-1)
        z = mean + ops.exp(0.5 * log_var) * x["noise"][:, 0]
        return {"mean": mean, "log_var": log_var, "again": self.decoder(z, training=training)}

    def compute_losses(self, x, y, outputs):
        mean, log_var = outputs["mean"], outputs["log_var"]
        kl = 0.5 * ops.sum(mean**2 + ops.exp(log_var) - 1 - log_var, axis=-1)
        return {"encoder": kl, "decoder": ops.sum((outputs["again"] - x["data"]) ** 2, axis=-1)}


def conv_judge():
    return keras.Sequential(
        [
            layers.Reshape((FEATURES, 1)),
            layers.Conv1D(4, 3, strides=2, padding="same"),
            layers.LeakyReLU(0.2),
            layers.Flatten(),
            layers.Dense(1),
        ]
    )


@registered
class GAN(ml.MLSystem):
    routing = "own"

    def __init__(self):
        super().__init__()
        generator = keras.Sequential(
            [
                layers.Dense(16, use_bias=False),  # batch norm leaves a bias without a gradient
                layers.BatchNormalization(),
                layers.Activation("tanh"),
                layers.Dense(FEATURES),
            ]
        )
        self.generator, self.discriminator = member(generator), member(conv_judge())

    def forward(self, x, training=None):
        fake = self.generator(x["noise"][:, 0], training=training)
        real = self.discriminator(x["data"], training=training)
        return {"real": real, "fake": self.discriminator(fake, training=training)}

    def compute_losses(self, x, y, outputs):
        one, zero = ops.ones_like(outputs["real"]), ops.zeros_like(outputs["real"])
        return {
            "generator": bce(one, outputs["fake"]),
            "discriminator": bce(one, outputs["real"]) + bce(zero, outputs["fake"]),
        }


@registered
class WGANGP(ml.MLSystem):
    routing = "own"
    phases = (("critic",), ("critic",), ("generator",))

    def __init__(self):
        super().__init__()
        self.generator, self.critic = member(mlp(16, FEATURES)), member(mlp(16, 16, 1))

    def forward(self, x, phase=None):
        fake = self.generator(x["noise"][:, phase or 0])
        between = fake + x["mix"][:, phase or 0] * (x["data"] - fake)
        return {"real": self.critic(x["data"]), "fake": self.critic(fake), "between": between}

    def compute_losses(self, x, y, outputs):
        slope = ml.grad(self.critic)(outputs["between"])
        penalty = (ops.sqrt(ops.sum(slope**2, axis=-1)) - 1) ** 2
        score = ops.mean(outputs["fake"]) - ops.mean(outputs["real"])
        return {
            "generator": -ops.mean(outputs["fake"]),
            "critic": {"score": score, "penalty": 10 * ops.mean(penalty)},
        }


class DANN(ml.MLSystem):
    routing = {  # noqa: RUF012
        "features": {"label": 1, "domain": -0.3},
        "label": {"label": 1},
        "domain": {"domain": 1},
    }

    def __init__(self):
        super().__init__()
        self.features, self.label = member(mlp(16, 8)), member(mlp(8, 3))
        self.domain = member(mlp(8, 1))

    def forward(self, x, training=None):
        source, target = self.features(x["data"]), self.features(x["other"])
        domains = self.domain(ops.concatenate([source, target]))
        return {"label": self.label(source), "domain": domains}

    def compute_losses(self, x, y, outputs):
        truth = ops.concatenate([ops.zeros((BATCH, 1)), ops.ones((BATCH, 1))])
        label = keras.losses.sparse_categorical_crossentropy(y, outputs["label"], from_logits=True)
        return {"label": label, "domain": bce(truth, outputs["domain"])}


@registered
class BYOL(ml.MLSystem):
    def __init__(self):
        super().__init__()
        net = [
            layers.Dense(16, use_bias=False),
            layers.BatchNormalization(),
            layers.Activation("tanh"),
        ]
        self.online = member(keras.Sequential([*net, layers.Dense(8)]))
        self.predictor = member(mlp(8, 8))
        self.target = ml.EMA(self.online, momentum=0.9)
        self.seed = keras.random.SeedGenerator(7)  # nothing is drawn from it: backends differ there

    def forward(self, x, training=None):
        one, two = x["data"] + 0.1 * x["other"], x["data"] - 0.1 * x["other"]
        return {
            "predictions": [self.predictor(self.online(v, training=training)) for v in (one, two)],
            "targets": [self.target(v) for v in (two, one)],
        }

    def compute_losses(self, x, y, outputs):
        pairs = zip(outputs["predictions"], outputs["targets"], strict=True)
        return {"online": sum(2 - 2 * ops.mean(ops.sum(_unit(p) * _unit(t), -1)) for p, t in pairs)}


def _unit(x):
    return x / ops.sqrt(ops.sum(x**2, axis=-1, keepdims=True) + 1e-6)


SYSTEMS = {"vae": VAE, "gan": GAN, "wgan_gp": WGANGP, "dann": DANN, "byol": BYOL}


def data():
    """Inputs with the noise of each phase, and labels."""
    rng = np.random.default_rng(0)
    n = STEPS * BATCH
    x = {
        "data": rng.normal(size=(n, FEATURES)),
        "other": rng.normal(size=(n, FEATURES)),
        "noise": rng.normal(size=(n, 3, LATENT)),
        "mix": rng.uniform(size=(n, 3, 1)),
    }
    return {k: v.astype("float32") for k, v in x.items()}, rng.integers(0, 3, size=n)


def give_weights(system, seed=1):
    """Sets all weights from NumPy, a copy like its source."""
    rng = np.random.default_rng(seed)
    for weight in system.weights:
        scale = 1.0 / np.sqrt(max(1, weight.shape[0])) if len(weight.shape) > 1 else 0.0
        if "moving" not in weight.path and "gamma" not in weight.path and scale:
            weight.assign(scale * rng.normal(size=weight.shape))
    for member in system._mlsystem.setup.members.values():
        if isinstance(member, ml.EMA):
            member.start()


class Losses(keras.callbacks.Callback):
    """Keeps each batch's own losses, from the running means of `fit`."""

    def __init__(self):
        super().__init__()
        self.kept = []

    def on_train_batch_begin(self, batch, logs=None):
        self.model.reset_metrics()

    def on_train_batch_end(self, batch, logs=None):
        self.kept.append([float(ops.convert_to_numpy(logs[name])) for name in sorted(logs)])


def made(name, **given):
    """A system with its weights."""
    system, (x, y) = SYSTEMS[name](), data()
    system.compile(**given)
    system.setup(({k: v[:BATCH] for k, v in x.items()}, y[:BATCH]))
    give_weights(system)
    return system


def fit(system):
    """The losses of each step, and the history."""
    losses = Losses()
    given = {"batch_size": BATCH, "shuffle": False, "verbose": 0, "callbacks": [losses]}
    history = system.fit(*data(), **given).history
    return np.array(losses.kept), history


def numbers(system):
    """All weights as one array."""
    return np.concatenate([ops.convert_to_numpy(w).ravel() for w in system.weights])


def train(name, **given):
    """The losses of each step, the final weights and the history of one system."""
    losses, history = fit(system := made(name, **given))
    return losses, numbers(system), history


def main(path):
    """Trains all and writes `NAME_losses` and `NAME_weights`, and `NAME_after` of those saved."""
    results = {}
    for name in SYSTEMS:
        results[f"{name}_losses"], _ = fit(system := made(name))
        results[f"{name}_weights"] = numbers(system)
        if name in SAVED:
            system.save(Path(path).with_name(f"{name}.keras"))
            results[f"{name}_after"], _ = fit(system)
    np.savez(path, **results)


def go_on(path, files):
    """Takes the steps after those of each file, and writes their losses by its name."""
    results = {}
    for file in files:
        system = keras.saving.load_model(file)
        assert int(system.optimizer.iterations) == STEPS
        results[file], _ = fit(system)
    np.savez(path, **results)


if __name__ == "__main__":
    main(sys.argv[1]) if len(sys.argv) == 2 else go_on(sys.argv[1], sys.argv[2:])

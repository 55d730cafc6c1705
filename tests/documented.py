"""Small systems and data for the blocks of code in the documentation and in docstrings."""

import keras
import numpy as np
from keras import layers, ops

import mlsystem as ml

bce = keras.losses.BinaryCrossentropy(from_logits=True)
WIDTH, LATENT = 784, 4


def array(rows=64, columns=WIDTH, seed=0):
    return np.random.default_rng(seed).uniform(size=(rows, columns)).astype("float32")


images, held_out = array(), array(32, seed=1)
pictures = array(8, 16).reshape(8, 4, 4)


# The same code as in README.md and docs/index.md. A test compares them.
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

    def __init__(self):
        super().__init__()
        generator = keras.Sequential([layers.Dense(128, activation="relu"), layers.Dense(784)])
        discriminator = keras.Sequential([layers.Dense(128, activation="relu"), layers.Dense(1)])
        self.generator = Generator(generator, optimizer=keras.optimizers.Adam(2e-4, 0.5))
        self.discriminator = Discriminator(
            discriminator, optimizer=keras.optimizers.Adam(2e-4, 0.5)
        )
        self.seed = keras.random.SeedGenerator(0)

    def forward(self, images, training=None):
        noise = keras.random.normal((ops.shape(images)[0], 64), seed=self.seed)
        fake = self.generator(noise, training=training)
        return {
            "real": self.discriminator(images, training=training),
            "fake": self.discriminator(fake, training=training),
        }


class Encoder(ml.MLModel):
    def loss(self, x, y, outputs):
        mean, log_var = outputs["mean"], outputs["log_var"]
        return {"kl": 0.5 * ops.sum(ops.exp(log_var) + mean**2 - 1 - log_var, axis=-1)}


class Decoder(ml.MLModel):
    def loss(self, x, y, outputs):
        nats = keras.losses.binary_crossentropy(x, outputs["logits"], from_logits=True)
        return {"reconstruction": WIDTH * nats}


class VAE(ml.MLSystem):
    """The VAE of the start page, in small."""

    def __init__(self):
        super().__init__()
        self.encoder, self.decoder = Encoder(net(2 * LATENT)), Decoder(net(WIDTH))
        self.seed = keras.random.SeedGenerator(0)

    def forward(self, images):
        mean, log_var = ops.split(self.encoder(images), 2, axis=-1)
        noise = keras.random.normal(ops.shape(mean), seed=self.seed)
        logits = self.decoder(mean + ops.exp(0.5 * log_var) * noise)
        return {"mean": mean, "log_var": log_var, "logits": logits}


def net(outputs):
    return keras.Sequential([layers.Dense(8, activation="relu"), layers.Dense(outputs)])


class Rooms(ml.MLSystem):
    def __init__(self):
        super().__init__()
        self.encoder, self.depth, self.normals = net(WIDTH), layers.Dense(1), layers.Dense(3)

    def forward(self, x):
        code = self.encoder(x)
        return {"depth": self.depth(code), "normals": self.normals(code)}

    def compute_losses(self, x, y, outputs):
        return {name: ops.mean((y[name] - outputs[name]) ** 2, axis=-1) for name in outputs}


class Digits(ml.MLData):
    def train(self):
        return images, images[:, :1]


class Labelled(ml.MLSystem):
    """Learns from a stream with targets and one without."""

    def __init__(self):
        super().__init__()
        self.model = net(1)

    def forward(self, x):
        return {name: self.model(part) for name, part in x.items()}

    def compute_losses(self, x, y, outputs):
        return {"error": ops.mean((y["labelled"] - outputs["labelled"]) ** 2, axis=-1)}


class LargeNoise(GAN):
    """Its generator takes 100 numbers."""

    def forward(self, images, training=None):
        fake = self.generator(keras.random.normal((ops.shape(images)[0], 100), seed=self.seed))
        return {"real": self.discriminator(images), "fake": self.discriminator(fake)}


class Drawing(GAN):
    """Its generator makes images with rows and columns."""

    def __init__(self):
        super().__init__()
        self.generator = Generator(keras.Sequential([layers.Dense(8), layers.Reshape((2, 4))]))


def regressor():
    return ml.MLModel(keras.Sequential([layers.Flatten(), layers.Dense(1)]), loss="mse")


def many():
    return np.random.default_rng(0).uniform(size=(1600, 4, 4, 1)).astype("float32")


# The names that the docstring of a class or function uses and does not define.
NAMES = {
    "mlsystem.MLData": lambda: {
        "load": lambda: (many(), np.zeros((1600, 1))),
        "augment": lambda x: x + 0.1,
        "clean": (many()[:32], np.zeros((32, 1))),
        "noisy": (many()[:32], np.zeros((32, 1))),
        "system": regressor(),
        **dict(zip(("x", "y", "x2", "y2"), (many()[:64], np.zeros((64, 1))) * 2, strict=True)),
    },
    "mlsystem.Ensemble": lambda: {"x": images, "labels": np.arange(64) % 10},
    "mlsystem.MLModel": lambda: {"x": images, "y": images[:, :1]},
    "mlsystem.Streams": lambda: {
        **{"x": images, "y": images[:, :1], "u": held_out},
        "system": Labelled(),
    },
    "mlsystem.setup": lambda: {"Digits": Digits, "system": regressor()},
    "mlsystem.callbacks.Advice": lambda: {"gan": LargeNoise()},
    "mlsystem.callbacks.Checkpoint": lambda: {"vae": VAE()},
    "mlsystem.process_index": lambda: {"gan": GAN().setup(images[:2])},
    "mlsystem.plot.system": lambda: {"gan": GAN().setup(images[:2])},
    "mlsystem.plot.samples": lambda: {
        "gan": Drawing(),
        **{"noise": array(16, LATENT), "early": pictures[:4], "late": pictures[4:]},
    },
}
GANS = (
    *("batch_size", "distribute", "gradients", "history", "learning_rate"),
    *("For", "GradientNorms", "Live", "Log", "Profile", "explain", "gradient_report", "memory"),
    "picture",
)
BALANCES = ("GradNorm", "PCGrad", "Uncertainty")


def names(name):
    """Returns the namespace in which the blocks of a docstring run."""
    common = {"GAN": GAN, "ml": ml, "keras": keras, "ops": ops, "layers": layers, "np": np}
    common |= {"images": images, "held_out": held_out, "decay": lambda epoch, rate: 0.9 * rate}
    last = name.rpartition(".")[2]
    if last in GANS:
        common["gan"] = GAN()
    if last in BALANCES:
        common["rooms"] = Rooms()
    return common | NAMES.get(name, dict)()

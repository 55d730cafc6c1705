"""Systems to export, and a program that trains and exports them on the backend of its process.

`python systems.py FOLDER FORMAT...` writes each export, and the numbers that the members return.
"""

import json
import sys
from pathlib import Path

import keras
import numpy as np
from keras import layers, ops

import mlsystem as ml

rng = np.random.default_rng(0)
ROWS = rng.uniform(size=(16, 8)).astype("float32")
PAIRS = {"image": ROWS, "label": rng.integers(0, 5, 16).astype("int32")}


class Generator(ml.MLModel):
    """Only wraps a network, so that it travels without its class."""

    def loss(self, x, y, outputs):
        return ops.mean((outputs["fake"] - 1) ** 2)


class Judge(ml.MLModel):
    def loss(self, x, y, outputs):
        return ops.mean((outputs["real"] - 1) ** 2) + ops.mean(outputs["fake"] ** 2)


class GAN(ml.MLSystem):
    """Batch norm, a copy that `forward` does not call, and random numbers."""

    routing = "own"

    def __init__(self):
        super().__init__()
        hidden = [layers.Dense(6, activation="relu"), layers.BatchNormalization()]
        self.generator = Generator(keras.Sequential([*hidden, layers.Dense(8)]))
        self.judge = Judge(keras.Sequential([layers.Dense(1)]))
        self.average = ml.EMA(self.generator, 0.9)
        self.seed = keras.random.SeedGenerator(0)

    def forward(self, images, training=None):
        noise = keras.random.normal((ops.shape(images)[0], 4), seed=self.seed)
        fake = self.generator(noise, training=training)
        return {"real": self.judge(images), "fake": self.judge(fake)}


class Encoder(ml.MLModel):
    """Two inputs, one of whole numbers and by keyword, and a dict of outputs."""

    def __init__(self):
        super().__init__()
        self.classes = layers.Embedding(5, 3)
        self.mean, self.scale = layers.Dense(4), layers.Dense(4)

    def forward(self, image, label, training=None):
        hidden = ops.concatenate([image, self.classes(label)], -1)
        return {"mean": self.mean(hidden), "scale": ops.exp(self.scale(hidden))}


class Decoder(ml.MLModel):
    """A dict of inputs."""

    def __init__(self):
        super().__init__()
        self.dense = layers.Dense(8)

    def forward(self, parts, training=None):
        return self.dense(parts["code"]) + parts["shift"]


class VAE(ml.MLSystem):
    """A weight of its own, beside two models."""

    def __init__(self):
        super().__init__()
        self.encoder, self.decoder = Encoder(), Decoder()
        self.temperature = self.add_weight(shape=(), initializer="ones", name="temperature")
        self.seed = keras.random.SeedGenerator(0)

    def forward(self, x, training=None):
        found = self.encoder(x["image"], label=x["label"])
        noise = keras.random.normal(ops.shape(found["mean"]), seed=self.seed)
        code = found["mean"] + found["scale"] * self.temperature * noise
        again = self.decoder({"code": code, "shift": x["image"]})
        return {"image": x["image"], "again": again}

    def compute_losses(self, x, y, outputs):
        return {"rebuilt": ops.mean((outputs["again"] - outputs["image"] - 1) ** 2)}


class Nested(ml.MLSystem):
    def __init__(self):
        super().__init__()
        self.vae, self.heads = VAE(), [layers.Dense(2), layers.Dense(2)]

    def forward(self, x, training=None):
        found = self.vae(x, training=training)
        return found | {"heads": [head(found["again"]) for head in self.heads]}

    def compute_losses(self, x, y, outputs):
        heads = sum(ops.mean(head**2) for head in outputs["heads"])
        return super().compute_losses(x, y, outputs) | {"heads": heads}


def trained(cls=GAN):
    keras.utils.set_random_seed(0)
    system = cls()
    system.fit(ROWS if cls is GAN else PAIRS, batch_size=8, verbose=0)
    return system


INPUTS = {
    "generator": {"inputs": ROWS[:3, :4]},
    "average": {"inputs": ROWS[:3, :4]},
    "judge": {"inputs": ROWS[:3]},
    "vae/encoder": {"image": ROWS[:3], "label": PAIRS["label"][:3]},
    "vae/decoder": {"code": ROWS[:3, :4], "shift": ROWS[:3]},
    "heads/0": {"inputs": ROWS[:3]},
    "heads/1": {"inputs": ROWS[:3]},
}


def outputs(system, name):
    """What a member returns for its `INPUTS`, by the names in files."""
    member = dict(system._mlsystem.members())[name]
    given = INPUTS[name]
    if name == "vae/encoder":
        found = member(given["image"], label=given["label"], training=False)
    elif name == "vae/decoder":
        found = member(given, training=False)
    else:
        (found,) = (member(array, training=False) for array in given.values())
    found = found if isinstance(found, dict) else {"output": found}
    return {key: ops.convert_to_numpy(value) for key, value in found.items()}


if __name__ == "__main__":
    folder, *formats = sys.argv[1:]
    for system in (trained(GAN), trained(Nested)):
        cls = type(system).__name__
        for wanted in formats:
            system.export(f"{folder}/{wanted}/{cls}", format=wanted)
        known = [name for name in system._mlsystem.members() if name in INPUTS]
        numbers = {n: {k: v.tolist() for k, v in outputs(system, n).items()} for n in known}
        Path(f"{folder}/{cls}.json").write_text(json.dumps(numbers))

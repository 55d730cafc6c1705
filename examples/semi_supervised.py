"""FixMatch (Sohn et al. 2020, arXiv:2001.07685): two streams of data, one without labels.

    KERAS_BACKEND=jax python examples/semi_supervised.py      # or torch, or tensorflow

Of the 1,797 handwritten digits of scikit-learn, 100 have labels, 400 are the test, and the others
have no labels. Where the classifier is sure of a digit that was hardly moved, it is to say the same
of that digit turned, slanted, with noise and a piece cut out. It is compared with the same network
after as many steps on the 100 digits alone, moved just as slightly. Accuracy is that of the moving
average of the weights, as in the paper.
"""

import mlsystem as ml  # before keras, so that it can choose an installed backend

from pathlib import Path

import keras
import numpy as np
from keras import layers, ops
from sklearn.datasets import load_digits

SIZE = 8
CENTRED = np.arange(SIZE, dtype="float32") - (SIZE - 1) / 2
PIXELS = np.stack(np.meshgrid(CENTRED, CENTRED, indexing="ij"), axis=-1).reshape(-1, 2)


class Digits(ml.MLData):
    transform_on_device = True  # a part of the compiled step

    def __init__(self, samples, steps, uses_unlabelled, seed):
        super().__init__()
        self.samples, self.steps, self.uses_unlabelled = samples, steps, uses_unlabelled
        self.order, self.seed = np.random.default_rng(seed), keras.random.SeedGenerator(seed)

    def prepare(self):
        x, y = load_digits(return_X_y=True)
        order = self.order.permutation(len(x))[: self.samples]
        self.x, self.y = x[order].reshape(-1, SIZE, SIZE, 1).astype("float32") / 16, y[order]
        self.labelled, self.first_test = min(100, self.samples // 4), len(order) * 7 // 9

    def train(self):
        streams = {"labelled": (self.x[: self.labelled], self.y[: self.labelled])}
        if self.uses_unlabelled:
            streams["unlabelled"] = self.x[self.labelled : self.first_test]
        sizes = {"labelled": 16, "unlabelled": 64}
        return ml.Streams(streams, {name: sizes[name] for name in streams}, length=self.steps)

    def test(self):
        return self.x[self.first_test :], self.y[self.first_test :]

    def transform(self, x, training=None):
        if not training:
            return x
        batch = {"labelled": self.weak(x["labelled"])}
        if self.uses_unlabelled:
            batch |= {"weak": self.weak(x["unlabelled"]), "strong": self.strong(x["unlabelled"])}
        return batch

    def weak(self, images):
        return self.moved(images, shift=0.25)

    def strong(self, images):
        moved = self.moved(images, shift=1.0, turn=0.3)
        away = ops.max(ops.abs(ops.subtract(self.uniform(images, 4.0, 1, 2), PIXELS)), axis=-1)
        kept = ops.reshape(ops.cast(away > 1.5, moved.dtype), ops.shape(moved))
        return moved * kept + 0.1 * keras.random.normal(ops.shape(moved), seed=self.seed)

    def moved(self, images, shift, turn=0.0):
        """Each image shifted by some pixels, and turned, stretched and slanted, at random."""
        matrix = ops.eye(2) + self.uniform(images, turn, 2, 2)
        places = ops.matmul(PIXELS, matrix) + self.uniform(images, shift, 1, 2)
        near = ops.relu(
            1 - ops.abs(ops.subtract(places[:, :, None], PIXELS))
        )  # linear interpolation
        flat = ops.reshape(images, (-1, SIZE * SIZE, 1))
        return ops.reshape(ops.matmul(near[..., 0] * near[..., 1], flat), ops.shape(images))

    def uniform(self, images, size, *shape):
        shape = (ops.shape(images)[0], *shape)
        return keras.random.uniform(shape, -size, size, seed=self.seed)


class FixMatch(ml.MLSystem):
    def __init__(self, threshold=0.9):
        super().__init__()
        self.threshold = threshold
        self.classifier = classifier()
        self.average = ml.EMA(self.classifier, momentum=0.99)

    def forward(self, x, training=None):
        if not isinstance(x, dict):
            return self.average(x)
        return {name: self.classifier(images, training=training) for name, images in x.items()}

    def compute_losses(self, x, y, outputs):
        losses = {"labelled": cross_entropy(y["labelled"], outputs["labelled"])}
        if "weak" in outputs:
            guess = ops.stop_gradient(ops.softmax(outputs["weak"]))
            sure = ops.cast(ops.max(guess, axis=-1) >= self.threshold, "float32")
            unlabelled = sure * cross_entropy(ops.argmax(guess, axis=-1), outputs["strong"])
            losses["unlabelled"] = ops.mean(unlabelled)  # a batch of another size
        return losses


def cross_entropy(labels, logits):
    return keras.losses.sparse_categorical_crossentropy(labels, logits, from_logits=True)


def classifier():
    return keras.Sequential(
        [
            layers.Conv2D(32, 3, padding="same", activation="relu"),
            layers.MaxPooling2D(),
            layers.Conv2D(64, 3, padding="same", activation="relu"),
            layers.Flatten(),
            layers.Dense(64, activation="relu"),
            layers.Dense(10),
        ]
    )


def trained(uses_unlabelled, seed, epochs, steps, samples):
    """The accuracy on the test digits, and the system and the history of its training."""
    keras.utils.set_random_seed(seed)
    data, system = Digits(samples, steps, uses_unlabelled, seed), FixMatch()
    history = system.fit(data, epochs=epochs, verbose=0)
    labels = np.argmax(system.predict(data, verbose=0), axis=-1)
    return float(np.mean(labels == data.part("test")[1])), system, history


def main(epochs=30, steps=50, samples=1797, seeds=(0, 1, 2), folder="pictures"):
    runs = [
        [trained(uses, seed, epochs, steps, samples) for seed in seeds] for uses in (False, True)
    ]
    supervised, fixmatch = (np.mean([run[0] for run in of_kind]) for of_kind in runs)
    gain = 100 * (fixmatch - supervised)
    print(f"accuracy from 100 labels: {supervised:.3f} supervised, {fixmatch:.3f} FixMatch")
    print(f"a difference of {gain:+.1f} points")
    _, system, history = runs[1][0]
    Path(folder).mkdir(parents=True, exist_ok=True)
    system.picture().save(f"{folder}/semi_supervised.svg")
    ml.plot.history(history).savefig(f"{folder}/semi_supervised.png")
    return {"supervised": supervised, "fixmatch": fixmatch, "gain": gain}


if __name__ == "__main__":
    main()

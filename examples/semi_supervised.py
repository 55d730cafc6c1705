"""FixMatch (Sohn et al. 2020, arXiv:2001.07685): two streams of data, one without labels.

    KERAS_BACKEND=jax python examples/semi_supervised.py      # or torch, or tensorflow

100 of scikit-learn's handwritten digits have labels, and 1,297 have none; 400 others are the test.
Where the classifier is sure of a digit that was hardly moved, it is to say the same of that digit
turned, stretched, with noise and a piece cut out. Without that loss, and with all else equal, the
same steps on the same labels are the comparison. Accuracy is that of the classifier's moving
average, as in the paper.
"""

import mlsystem as ml  # before keras, so that it can choose an installed backend

# isort: split
import keras
import numpy as np
from keras import layers, ops
from sklearn.datasets import load_digits

SIZE = 8
GRID = np.stack(np.meshgrid(*[np.arange(SIZE) - (SIZE - 1) / 2] * 2, indexing="ij"), axis=-1)
GRID = GRID.reshape(-1, 2).astype("float32")  # the place of each pixel, from the centre


class Digits(ml.MLData):
    transform_on_device = True

    def __init__(self, samples, labelled, steps, seed):
        super().__init__()
        self.samples, self.labelled, self.steps, self.order = samples, labelled, steps, seed
        self.seed = keras.random.SeedGenerator(seed)

    def prepare(self):
        x, y = load_digits(return_X_y=True)
        order = np.random.default_rng(self.order).permutation(len(x))[: self.samples]
        self.x, self.y = x[order].reshape(-1, SIZE, SIZE, 1).astype("float32") / 16, y[order]
        self.first_test = len(x) * 7 // 9

    def train(self):
        x, y = self.x[: self.labelled], self.y[: self.labelled]
        unlabelled = self.x[self.labelled : -self.samples * 2 // 9]
        streams = {"labelled": (x, y), "unlabelled": unlabelled}
        sizes = {"labelled": 32, "unlabelled": 64}
        return ml.Streams(streams, batch_size=sizes, length=self.steps)

    def test(self):
        return self.x[-self.samples * 2 // 9 :], self.y[-self.samples * 2 // 9 :]

    def transform(self, x, training=None):
        if not training:
            return x
        weak = self.weak(x["unlabelled"])
        strong = self.strong(x["unlabelled"])
        return {"labelled": self.weak(x["labelled"]), "weak": weak, "strong": strong}

    def uniform(self, size, *shape):
        return keras.random.uniform(shape, -size, size, seed=self.seed)

    def moved(self, images, shift, turn):
        """Each image shifted by so many pixels, and turned, stretched and slanted by so much."""
        n = ops.shape(images)[0]
        matrix = np.eye(2, dtype="float32") + self.uniform(turn, n, 2, 2)
        places = ops.matmul(GRID, matrix) + self.uniform(shift, n, 1, 2)
        near = ops.relu(1 - ops.abs(places[:, :, None] - GRID))  # linear interpolation
        pixels = ops.matmul(near[..., 0] * near[..., 1], ops.reshape(images, (n, -1, 1)))
        return ops.reshape(pixels, (n, SIZE, SIZE, 1))

    def weak(self, images):
        return self.moved(images, shift=0.5, turn=0.0)

    def strong(self, images):
        images = self.moved(images, shift=1.0, turn=0.3)
        n = ops.shape(images)[0]
        away = ops.max(ops.abs(GRID - self.uniform(4, n, 1, 2)), axis=-1)
        kept = ops.reshape(ops.cast(away > 1.5, "float32"), (n, SIZE, SIZE, 1))
        noise = keras.random.normal(ops.shape(images), stddev=0.1, seed=self.seed)
        return images * kept + noise


class FixMatch(ml.MLSystem):
    def __init__(self, weight, threshold=0.95):
        super().__init__()
        self.weight, self.threshold = weight, threshold
        self.classifier = classifier()
        self.average = ml.EMA(self.classifier, momentum=0.99)

    def configure_optimizers(self):
        return super().configure_optimizers("adam", 1e-3)

    def forward(self, x, training=None):
        if not training and not isinstance(x, dict):
            return self.average(x)
        return {name: self.classifier(images, training=training) for name, images in x.items()}

    def compute_losses(self, x, y, outputs):
        labelled = ops.mean(cross_entropy(y["labelled"], outputs["labelled"]))
        sure = ops.stop_gradient(ops.softmax(outputs["weak"]))
        mask = ops.cast(ops.max(sure, axis=-1) >= self.threshold, "float32")
        unlabelled = ops.mean(mask * cross_entropy(ops.argmax(sure, axis=-1), outputs["strong"]))
        self.log("sure", mask)
        return {"labelled": labelled, "unlabelled": self.weight * unlabelled}


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


def accuracy(weight, seed, epochs, steps, samples, labelled):
    keras.utils.set_random_seed(seed)
    data = Digits(samples, labelled, steps, seed)
    system = FixMatch(weight)
    system.fit(data, epochs=epochs, verbose=0)
    x, y = data.part("test")
    return float(np.mean(np.argmax(system.predict(x, verbose=0), axis=-1) == y))


def main(epochs=24, steps=50, samples=1797, labelled=100, seeds=(0, 1, 2)):
    given = {"epochs": epochs, "steps": steps, "samples": samples, "labelled": labelled}
    supervised = np.mean([accuracy(0.0, seed, **given) for seed in seeds])
    fixmatch = np.mean([accuracy(1.0, seed, **given) for seed in seeds])
    gain = 100 * (fixmatch - supervised)
    print(f"accuracy from {labelled} labels: {supervised:.3f} supervised, {fixmatch:.3f} FixMatch")
    print(f"{gain:+.1f} points")
    return {"supervised": supervised, "fixmatch": fixmatch, "gain": gain}


if __name__ == "__main__":
    main()

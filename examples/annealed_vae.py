"""A VAE whose KL divergence is annealed (Bowman et al. 2016, arXiv:1511.06349): a loss that moves.

    KERAS_BACKEND=jax python examples/annealed_vae.py

With the whole divergence from the start, a decoder learns to do without latent dimensions before
these carry anything. Here the encoder follows the divergence with a weight that rises from 0 to 1,
and more of them are in use at the end. The data are scikit-learn's handwritten digits.
"""

import mlsystem as ml  # first, so that it chooses an installed backend

from pathlib import Path

import keras
import numpy as np
from keras import layers, ops
from sklearn.datasets import load_digits

PIXELS, LATENT = 64, 16


class VAE(ml.MLSystem):
    def __init__(self, kl_weight=1.0):
        super().__init__()
        self.encoder = ml.MLModel(net(2 * LATENT))
        self.decoder = ml.MLModel(net(PIXELS))
        self.seed = keras.random.SeedGenerator(0)
        self.routing = {
            "encoder": {"kl": kl_weight, "reconstruction": 1.0},
            "decoder": {"reconstruction": 1.0},
        }

    def forward(self, images):
        mean, log_var = ops.split(self.encoder(images), 2, axis=-1)
        noise = keras.random.normal(ops.shape(mean), seed=self.seed)
        logits = self.decoder(mean + ops.exp(0.5 * log_var) * noise)
        kl = 0.5 * (ops.exp(log_var) + mean**2 - 1 - log_var)  # of each sample and dimension
        return {"kl": kl, "logits": logits}

    def compute_losses(self, x, y, outputs):
        nats = keras.losses.binary_crossentropy(x, outputs["logits"], from_logits=True)
        return {"kl": ops.sum(outputs["kl"], axis=-1), "reconstruction": PIXELS * nats}


def net(outputs):
    hidden = [layers.Dense(128, activation="relu") for _ in range(2)]
    return keras.Sequential([*hidden, layers.Dense(outputs)])


def ramp(steps):
    """From 0 at the first batch to 1 after some: any schedule of Keras serves as a weight."""
    return keras.optimizers.schedules.PolynomialDecay(0.0, steps, end_learning_rate=1.0)


def trained(kl_weight, train, valid, epochs, seed):
    """The bound on the likelihood of unseen digits, and how many dimensions carry anything.

    With the system and the history of its training.
    """
    keras.utils.set_random_seed(seed)
    vae = VAE(kl_weight)
    history = vae.fit(train, batch_size=64, epochs=epochs, verbose=0)
    loss = vae.evaluate(valid, verbose=0, return_dict=True)["loss"]
    kl = np.mean(vae.predict(valid, verbose=0)["kl"], axis=0)
    return (-loss, int(np.sum(kl > 0.05))), vae, history


def main(epochs=100, samples=1797, seeds=(0, 1, 2), folder="pictures"):
    images = load_digits().data[:samples].astype("float32") / 16
    held_out = len(images) // 5
    train, valid = images[held_out:], images[:held_out]
    steps = epochs * (len(train) // 64 + 1)

    figures = {}
    for name, weight in {"whole": 1.0, "annealed": ramp(steps // 2)}.items():
        runs = [trained(weight, train, valid, epochs, seed) for seed in seeds]
        elbo, active = np.mean([found for found, _, _ in runs], axis=0)
        figures |= {f"{name}_elbo": elbo, f"{name}_active": active}
        print(f"{name}: ELBO {elbo:.2f} nats, {active:.1f} of {LATENT} latent dimensions in use")
    _, vae, history = runs[0]
    Path(folder).mkdir(parents=True, exist_ok=True)
    vae.picture().save(f"{folder}/annealed_vae.svg")
    ml.plot.history(history).savefig(f"{folder}/annealed_vae.png")
    return figures


if __name__ == "__main__":
    main()

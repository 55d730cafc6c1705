"""A variational autoencoder (Kingma & Welling 2014, arXiv:1312.6114): losses that are summed.

    KERAS_BACKEND=jax python examples/vae.py      # or torch, or tensorflow

The encoder answers for the KL divergence and the decoder for the reconstruction. With `"sum"`,
the default routing, both follow both, in one backward pass. The data are the 1,797 handwritten
digits of scikit-learn, whose pixels are read as probabilities.
"""

import mlsystem as ml  # before keras, so that it can choose an installed backend

from pathlib import Path

import keras
from keras import layers, ops
from sklearn.datasets import load_digits

PIXELS = 64


class Encoder(ml.MLModel):
    def __init__(self, latent):
        super().__init__()
        self.hidden = layers.Dense(256, activation="relu")
        self.mean = layers.Dense(latent)
        self.log_var = layers.Dense(latent)

    def forward(self, images):
        hidden = self.hidden(images)
        return self.mean(hidden), self.log_var(hidden)

    def loss(self, x, y, outputs):
        mean, log_var = outputs["mean"], outputs["log_var"]
        kl = 0.5 * ops.sum(ops.exp(log_var) + mean**2 - 1 - log_var, axis=-1)
        return {"kl": kl}


class Decoder(ml.MLModel):
    def loss(self, x, y, outputs):
        logits = outputs["logits"]
        nats = keras.losses.binary_crossentropy(x, logits, from_logits=True)  # a mean over pixels
        return {"reconstruction": PIXELS * nats}


class VAE(ml.MLSystem):
    routing = "sum"

    def __init__(self, latent=8):
        super().__init__()
        net = keras.Sequential([layers.Dense(256, activation="relu"), layers.Dense(PIXELS)])
        self.encoder = Encoder(latent)
        self.decoder = Decoder(net)
        self.seed = keras.random.SeedGenerator(0)

    def forward(self, images):
        mean, log_var = self.encoder(images)
        noise = keras.random.normal(ops.shape(mean), seed=self.seed)
        logits = self.decoder(mean + ops.exp(0.5 * log_var) * noise)
        return {"mean": mean, "log_var": log_var, "logits": logits}


def main(epochs=40, samples=1797, folder="pictures", seed=0):
    keras.utils.set_random_seed(seed)
    images = load_digits().data[:samples].astype("float32") / 16
    held_out = len(images) // 5
    train, valid = images[held_out:], images[:held_out]

    vae = VAE()
    before = vae.evaluate(valid, verbose=0, return_dict=True)
    history = vae.fit(train, batch_size=64, epochs=epochs, validation_data=(valid,), verbose=2)
    after = vae.evaluate(valid, verbose=0, return_dict=True)
    print(
        f"ELBO of unseen digits, in nats: {-before['loss']:.1f} before, {-after['loss']:.1f} after"
    )
    Path(folder).mkdir(parents=True, exist_ok=True)
    vae.picture().save(f"{folder}/vae.svg")
    ml.plot.history(history).savefig(f"{folder}/vae.png")
    return {f"{name}_before": value for name, value in before.items()} | after


if __name__ == "__main__":
    main()

"""A search with KerasTuner over a system: a rate for each model, a width, and a loss weight.

    KERAS_BACKEND=jax python examples/search_kerastuner.py      # or torch, or tensorflow

The system is a VAE of the digits of scikit-learn. Its score is the reconstruction of unseen
digits, with at most 8 nats of KL divergence: the search finds a weight for that. KerasTuner
(O'Malley et al. 2019, https://github.com/keras-team/keras-tuner) copies callbacks for each trial.

    python -m pip install 'mlsystem[tune]'
"""

import mlsystem as ml  # before keras, so that it can choose an installed backend

import tempfile

import keras
import keras_tuner
from keras import layers, ops
from sklearn.datasets import load_digits

PIXELS, LATENT, MOST_KL = 64, 8, 8.0


class Encoder(ml.MLModel):
    def loss(self, x, y, outputs):
        mean, log_var = outputs["mean"], outputs["log_var"]
        return {"kl": 0.5 * ops.sum(ops.exp(log_var) + mean**2 - 1 - log_var, axis=-1)}


class Decoder(ml.MLModel):
    def loss(self, x, y, outputs):
        nats = keras.losses.binary_crossentropy(x, outputs["logits"], from_logits=True)
        return {"reconstruction": PIXELS * nats}


class VAE(ml.MLSystem):
    def __init__(self, width, rates, kl_weight):
        super().__init__()
        adam = keras.optimizers.Adam
        self.encoder = Encoder(net(width, 2 * LATENT), optimizer=adam(rates["encoder"]))
        self.decoder = Decoder(net(width, PIXELS), optimizer=adam(rates["decoder"]))
        self.seed = keras.random.SeedGenerator(0)
        self.compile(loss_weights={"kl": kl_weight})

    def forward(self, images):
        mean, log_var = ops.split(self.encoder(images), 2, axis=-1)
        noise = keras.random.normal(ops.shape(mean), seed=self.seed)
        logits = self.decoder(mean + ops.exp(0.5 * log_var) * noise)
        return {"mean": mean, "log_var": log_var, "logits": logits}


def net(width, outputs):
    return keras.Sequential([layers.Dense(width, activation="relu"), layers.Dense(outputs)])


class Search(keras_tuner.HyperModel):
    """The settings that KerasTuner may choose, and the score of a trial, which is to be low."""

    def build(self, hp):
        names = ("encoder", "decoder")
        rates = {n: hp.Float(f"{n}_rate", 1e-4, 3e-2, sampling="log", default=1e-3) for n in names}
        width = hp.Int("width", 32, 256, sampling="log", default=64)
        return VAE(width, rates, hp.Float("kl_weight", 0.1, 10.0, sampling="log", default=1.0))

    def fit(self, hp, model, *args, **kwargs):
        logs = model.fit(*args, **kwargs).history
        kl, nats = logs["val_encoder_kl"][-1], logs["val_decoder_reconstruction"][-1]
        return nats + 10 * max(0.0, kl - MOST_KL)


def main(trials=12, epochs=15, samples=1797, seed=0):
    keras.utils.set_random_seed(seed)
    images = load_digits().data[:samples].astype("float32") / 16
    held_out = samples // 5
    with tempfile.TemporaryDirectory() as folder:
        tuner = keras_tuner.BayesianOptimization(
            Search(),
            max_trials=trials,
            seed=seed,
            directory=folder,
            project_name="vae",
        )
        tuner.search(
            images[held_out:],
            validation_data=(images[:held_out],),
            batch_size=64,
            epochs=epochs,
            callbacks=[ml.callbacks.GradientNorms(every=100)],
            verbose=0,
        )
        scores = {t.trial_id: t.score for t in tuner.oracle.trials.values()}
        best = tuner.get_best_hyperparameters()[0].values
    first = next(iter(scores.values()))  # the defaults are tried first
    print(f"score of unseen digits: {first:.2f} by the defaults, {min(scores.values()):.2f} best")
    print(f"best: {best}")
    return {"default": first, "best": min(scores.values())}


if __name__ == "__main__":
    main()

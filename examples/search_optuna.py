"""A search with Optuna over a system: a rate for each model, widths, and a routing weight.

    KERAS_BACKEND=jax python examples/search_optuna.py      # or torch, or tensorflow

An encoder reads digits, of which only 100 have labels. It follows the loss of a reader of labels
and, with a weight, that of a painter that draws the digit again. The weight is one of five numbers
that Optuna chooses (Akiba et al. 2019, arXiv:1907.10902). Trials with a low validation accuracy
are pruned after a few epochs. The data are the 1,797 digits of scikit-learn.

    python -m pip install 'mlsystem[tune]'
"""

import mlsystem as ml  # before keras, so that it can choose an installed backend

import keras
import numpy as np
import optuna
from keras import layers, ops
from optuna_integration import KerasPruningCallback
from sklearn.datasets import load_digits

ADAM = keras.optimizers.Adam


class Reader(ml.MLModel):
    def loss(self, x, y, outputs):
        labelled = ops.cast(y >= 0, "float32")
        count = ops.maximum(ops.sum(labelled), 1)
        right = ops.argmax(outputs["digit"], axis=-1) == ops.cast(y, "int32")
        self.log("accuracy", ops.sum(labelled * ops.cast(right, "float32")) / count)
        losses = keras.losses.sparse_categorical_crossentropy(
            ops.maximum(y, 0), outputs["digit"], from_logits=True
        )
        return ops.sum(labelled * losses) / count


class Painter(ml.MLModel):
    def loss(self, x, y, outputs):
        return 10 * ops.mean((outputs["image"] - x) ** 2, axis=-1)


class Digits(ml.MLSystem):
    def __init__(self, width, painter_width, rates, weight):
        super().__init__()
        self.encoder = ml.MLModel(net(width, 32), optimizer=ADAM(rates["encoder"]))
        self.reader = Reader(layers.Dense(10), optimizer=ADAM(rates["reader"]))
        self.painter = Painter(net(painter_width, 64), optimizer=ADAM(rates["painter"]))
        self.routing = {
            "encoder": {"reader": 1, "painter": weight},
            "reader": {"reader": 1},
            "painter": {"painter": 1},
        }

    def forward(self, images):
        code = ops.relu(self.encoder(images))
        return {"digit": self.reader(code), "image": self.painter(code)}


def net(width, outputs):
    return keras.Sequential([layers.Dense(width, activation="relu"), layers.Dense(outputs)])


def digits(samples, labels):
    """Training data of which most have the label -1, and validation data."""
    x, y = load_digits(return_X_y=True)
    order = np.random.default_rng(0).permutation(len(x))[:samples]
    x, y = x[order].astype("float32") / 16, y[order].astype("int32")
    half = samples // 2
    known = np.where(np.arange(half) % max(half // labels, 1) == 0, y[:half], -1)
    return (x[:half], known), (x[half:], y[half:])


def make(trial):
    """A system with the settings of a trial."""
    names = ("encoder", "reader", "painter")
    rates = {name: trial.suggest_float(f"{name}_rate", 1e-4, 3e-2, log=True) for name in names}
    return Digits(
        trial.suggest_int("width", 32, 256, log=True),
        trial.suggest_int("painter_width", 32, 256, log=True),
        rates,
        trial.suggest_float("painter_weight", 0.01, 10, log=True),
    )


def main(trials=40, epochs=20, samples=1797, labels=100, seed=0):
    train, valid = digits(samples, labels)

    def objective(trial):
        keras.utils.set_random_seed(seed)
        pruning = KerasPruningCallback(trial, "val_accuracy")  # any log of `fit`
        history = make(trial).fit(
            *train,
            validation_data=valid,
            batch_size=64,
            epochs=epochs,
            callbacks=[pruning],
            verbose=0,
        )
        return history.history["val_accuracy"][-1]

    optuna.logging.set_verbosity(optuna.logging.WARNING)
    study = optuna.create_study(
        direction="maximize",
        sampler=optuna.samplers.TPESampler(seed=seed),
        pruner=optuna.pruners.MedianPruner(n_startup_trials=5, n_warmup_steps=2),
    )
    default = dict.fromkeys(("encoder_rate", "reader_rate", "painter_rate"), 1e-3)
    study.enqueue_trial(default | {"width": 64, "painter_width": 64, "painter_weight": 1.0})
    study.optimize(objective, n_trials=trials)
    pruned = sum(trial.state is optuna.trial.TrialState.PRUNED for trial in study.trials)
    print(f"validation accuracy: {study.trials[0].value:.3f} by hand, {study.best_value:.3f} best")
    print(f"{pruned} of {trials} trials were pruned; best: {study.best_params}")
    return {"by_hand": study.trials[0].value, "best": study.best_value, "pruned": pruned}


if __name__ == "__main__":
    main()

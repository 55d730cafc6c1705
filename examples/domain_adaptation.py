"""Domain-adversarial training (Ganin et al. 2016, arXiv:1505.07818): a negative weight.

    KERAS_BACKEND=jax python examples/domain_adaptation.py      # or torch, or tensorflow

Digits with labels are the source; the target are other digits, without labels, one pixel lower.
A classifier tells the digits apart, another tells the domains apart, and the features that both
see follow the first and *flee* the second: its loss stands in their routing with a negative
weight, which grows with training as in eq. 14 of the paper. No layer reverses any gradient.
"""

import mlsystem as ml  # before keras, so that it can choose an installed backend

from pathlib import Path

import keras
import numpy as np
from keras import layers, ops
from sklearn.datasets import load_digits


class Reversal(keras.optimizers.schedules.LearningRateSchedule):
    """From 0 to -weight in so many batches: the paper's -lambda."""

    def __init__(self, weight, batches):
        self.weight, self.batches = weight, batches

    def __call__(self, step):
        progress = ops.cast(step, "float32") / self.batches
        return -self.weight * (2 / (1 + ops.exp(-10 * progress)) - 1)


class Digit(ml.MLModel):
    def loss(self, x, y, outputs):
        return keras.losses.sparse_categorical_crossentropy(y, outputs["digit"], from_logits=True)


class Domain(ml.MLModel):
    def loss(self, x, y, outputs):
        source, target = outputs["source"], outputs["target"]  # logits of being the target
        return ops.mean(ops.softplus(source), axis=-1) + ops.mean(ops.softplus(-target), axis=-1)


class DANN(ml.MLSystem):
    def __init__(self, reversal):
        super().__init__()
        self.features = ml.MLModel(features())
        self.digit = Digit(head(10))
        self.domain = Domain(head(1))
        self.routing = {
            "features": {"digit": 1, "domain": reversal},
            "digit": {"digit": 1},
            "domain": {"domain": 1},
        }

    def configure_optimizers(self):
        return super().configure_optimizers("adam", 5e-4, beta_1=0.5)

    def forward(self, x, training=None):
        source = self.features(x["source"], training=training)
        target = self.features(x["target"], training=training)
        return {
            "digit": self.digit(source),
            "source": self.domain(source),
            "target": self.domain(target),
        }


def features():
    return keras.Sequential(
        [
            layers.Conv2D(32, 3, padding="same", activation="relu"),
            layers.MaxPooling2D(),
            layers.Conv2D(48, 3, padding="same", activation="relu"),
            layers.Flatten(),
            layers.Dense(64, activation="tanh"),
        ]
    )


def head(units):
    return keras.Sequential([layers.Dense(64, activation="relu"), layers.Dense(units)])


def one_pixel_lower(images):
    return np.pad(images, ((0, 0), (1, 0), (0, 0), (0, 0)))[:, :-1]


def domains(samples, seed):
    images, labels = load_digits(return_X_y=True)
    order = np.random.default_rng(seed).permutation(len(images))[:samples]
    images, labels = images[order].reshape(-1, 8, 8, 1).astype("float32") / 16, labels[order]
    n = len(images) * 2 // 5
    source, target = images[:n], one_pixel_lower(images[n:])
    return {"source": source, "target": target[:n]}, labels[:n], target[n:], labels[2 * n :]


def trained(weight, epochs, samples, seed):
    """The accuracy on the target, and the system and the history of its training."""
    keras.utils.set_random_seed(seed)
    x, y, x_test, y_test = domains(samples, seed)
    dann = DANN(Reversal(weight, epochs * -(-len(y) // 32)) if weight else 0)
    history = dann.fit(x, y, batch_size=32, epochs=epochs, verbose=0)
    logits = dann.digit(dann.features(x_test))
    right = np.argmax(ops.convert_to_numpy(logits), axis=-1) == y_test
    return float(np.mean(right)), dann, history


def main(epochs=20, samples=1797, seeds=(0, 1), folder="pictures"):
    plain = np.mean([trained(0, epochs, samples, seed)[0] for seed in seeds])
    runs = [trained(0.5, epochs, samples, seed) for seed in seeds]
    adapted, (_, dann, history) = np.mean([run[0] for run in runs]), runs[0]
    print(f"accuracy on the target: {plain:.3f} from the source alone, {adapted:.3f} adapted")
    Path(folder).mkdir(parents=True, exist_ok=True)
    dann.picture().save(f"{folder}/domain_adaptation.svg")
    ml.plot.history(history).savefig(f"{folder}/domain_adaptation.png")
    return {"source_only": plain, "adapted": adapted}


if __name__ == "__main__":
    main()

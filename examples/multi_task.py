"""Two tasks of one encoder, and balances of their losses (Kendall et al. 2018, arXiv:1705.07115).

    KERAS_BACKEND=jax python examples/multi_task.py      # or torch, or tensorflow

An encoder looks at a rotated digit. One head names the digit. The other head says how far it is
rotated, in degrees. A squared error in degrees is far larger than a cross-entropy. So the sum of
both losses teaches mostly the angle. `ml.balance` learns a weight for each loss during training:
`Uncertainty` from the noise of the loss, `GradNorm` from its gradient. For comparison, an encoder
follows one task alone. The data are the 1,797 handwritten digits of scikit-learn. A fifth is held
out.
"""

import mlsystem as ml  # first, so that it chooses an installed backend

from pathlib import Path

import keras
import numpy as np
from keras import layers, ops
from matplotlib.figure import Figure
from scipy.ndimage import rotate
from sklearn.datasets import load_digits

TASKS = ("digit", "angle")


class Digit(ml.MLModel):
    def loss(self, x, y, outputs):
        right = ops.argmax(outputs["digit"], axis=-1) == ops.cast(y["digit"], "int32")
        self.log("accuracy", ops.cast(right, "float32"))
        return keras.losses.sparse_categorical_crossentropy(
            y["digit"], outputs["digit"], from_logits=True
        )


class Angle(ml.MLModel):
    def loss(self, x, y, outputs):
        error = outputs["angle"][:, 0] - y["angle"]
        self.log("degrees", ops.abs(error))
        return error**2


class TwoTasks(ml.MLSystem):
    def __init__(self, balance=None, tasks=TASKS):
        super().__init__()
        self.encoder = ml.MLModel(encoder_net())
        self.digit, self.angle = Digit(head_net(10)), Angle(head_net(1))
        self.balance = balance
        self.routing = {
            "encoder": dict.fromkeys(tasks, 1.0),
            "digit": {"digit": 1.0},
            "angle": {"angle": 1.0},
        }

    def configure_optimizers(self):
        return super().configure_optimizers("adam", 2e-3)

    def forward(self, images):
        features = self.encoder(images)
        return {"digit": self.digit(features), "angle": self.angle(features)}


def encoder_net():
    return keras.Sequential(
        [
            layers.Conv2D(16, 3, padding="same", activation="relu"),
            layers.MaxPooling2D(),
            layers.Conv2D(32, 3, padding="same", activation="relu"),
            layers.Flatten(),
            layers.Dense(32, activation="relu"),
        ]
    )


def head_net(outputs):
    return keras.Sequential([layers.Dense(32, activation="relu"), layers.Dense(outputs)])


def rotated(samples, copies, seed):
    """Each digit several times, rotated by up to 45 degrees: training and validation data."""
    images, labels = load_digits(return_X_y=True)
    images = np.repeat(images[:samples].reshape(-1, 8, 8) / 16, copies, axis=0).astype("float32")
    angles = np.random.default_rng(seed).uniform(-45, 45, len(images)).astype("float32")
    pairs = zip(images, angles, strict=True)
    x = np.stack([rotate(image, angle, reshape=False, order=1) for image, angle in pairs])
    y = {"digit": np.repeat(labels[:samples], copies), "angle": angles}
    held_out = samples // 5 * copies
    parts = slice(held_out, None), slice(held_out)
    return [(x[part, ..., None], {name: y[name][part] for name in TASKS}) for part in parts]


def systems():
    """What is compared: how the losses are balanced, and which of them the encoder follows."""
    return {
        "sum": TwoTasks(),
        "Uncertainty": TwoTasks(ml.balance.Uncertainty(TASKS, keras.optimizers.Adam(0.05))),
        "GradNorm": TwoTasks(ml.balance.GradNorm(TASKS, shared="encoder")),
        "digit alone": TwoTasks(tasks=["digit"]),
        "angle alone": TwoTasks(tasks=["angle"]),
    }


def draw(histories, file):
    figure = Figure(figsize=(8, 3.5), layout="constrained")
    labels = {"val_accuracy": "accuracy of the digit", "val_degrees": "error of the angle, degrees"}
    left, right = figure.subplots(1, 2)
    for axes, (log, label) in zip((left, right), labels.items(), strict=True):
        for name, history in histories.items():
            axes.plot(history[log], "--" if "alone" in name else "-", label=name)
        axes.set(xlabel="epoch", ylabel=label)
    right.set_ylim(0, 15)
    figure.legend(*left.get_legend_handles_labels(), loc="outside right")
    figure.savefig(file)


def main(epochs=20, samples=1797, copies=4, folder="pictures", seed=0):
    train, valid = rotated(samples, copies, seed)
    histories, figures = {}, {}
    keras.utils.set_random_seed(seed)
    for name, system in systems().items():
        history = system.fit(
            *train, validation_data=valid, batch_size=64, epochs=epochs, verbose=0
        ).history
        histories[name] = history
        accuracy, degrees = history["val_accuracy"][-1], history["val_degrees"][-1]
        figures |= {f"{name}: accuracy": accuracy, f"{name}: degrees": degrees}
        print(f"{name}: {accuracy:.1%} of the digits, {degrees:.1f} degrees off")
        if name == "GradNorm":
            balanced = system

    Path(folder).mkdir(parents=True, exist_ok=True)
    draw(histories, f"{folder}/multi_task.png")
    balanced.picture().save(f"{folder}/multi_task.svg")
    return figures


if __name__ == "__main__":
    main()

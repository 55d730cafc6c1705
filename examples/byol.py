"""BYOL (Grill et al. 2020, arXiv:2006.07733): a target network that follows by moving average.

    KERAS_BACKEND=jax python examples/byol.py      # or torch, or tensorflow

The online network learns, without labels, to predict what its moving average sees in another view
of the same digit. Then 100 labels tell how good the features are: a logistic regression on them is
compared with one on the features of the untrained network. The data are the 1,797 handwritten
digits of scikit-learn.
"""

import mlsystem as ml  # before keras, so that it can choose an installed backend

from pathlib import Path

import keras
from keras import layers, ops
from sklearn.datasets import load_digits
from sklearn.linear_model import LogisticRegression
from sklearn.model_selection import train_test_split
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler


def encoder():
    return keras.Sequential(
        [
            layers.Conv2D(32, 3, padding="same"),
            layers.BatchNormalization(),
            layers.ReLU(),
            layers.MaxPooling2D(),
            layers.Conv2D(64, 3, padding="same"),
            layers.BatchNormalization(),
            layers.ReLU(),
            layers.Flatten(),
            layers.Dense(64),
        ],
        name="encoder",
    )


def mlp(name):
    hidden = [layers.Dense(128), layers.BatchNormalization(), layers.ReLU()]
    return keras.Sequential([*hidden, layers.Dense(32)], name=name)


class BYOL(ml.MLSystem):
    def __init__(self, momentum=0.95):
        super().__init__()
        self.online = keras.Sequential([encoder(), mlp("projector")])
        self.predictor = mlp("predictor")
        self.target = ml.EMA(self.online, momentum)
        self.seed = keras.random.SeedGenerator(0)

    def configure_optimizers(self):
        return super().configure_optimizers("adam", 3e-3)

    def view(self, images):
        """Each image moved, resized and turned brighter or darker by its own random amounts."""
        n, size = ops.shape(images)[0], images.shape[1]

        def uniform(low, high):
            return keras.random.uniform((n, 1, 1), low, high, seed=self.seed)

        grid = ops.arange(size, dtype="float32") - (size - 1) / 2
        rows, columns = (
            # Linear interpolation between the pixels i of the image, for each pixel j of the view.
            ops.relu(1 - ops.abs(grid - (uniform(0.8, 1.2) * grid[:, None] + uniform(-1, 1))))
            for _ in range(2)
        )
        moved = ops.matmul(ops.matmul(rows, images[..., 0]), ops.transpose(columns, (0, 2, 1)))
        noise = 0.1 * keras.random.normal(ops.shape(moved), seed=self.seed)
        return (uniform(0.7, 1.3) * moved + noise)[..., None]

    def forward(self, images, training=None):
        views = self.view(images), self.view(images)
        projected = [self.online(v, training=training) for v in views]
        predicted = [self.predictor(p, training=training) for p in projected]
        seen = [self.target(v, training=training) for v in views]
        return {"predicted": predicted, "seen": seen}

    def compute_losses(self, x, y, outputs):
        (a, b), (seen_a, seen_b) = outputs["predicted"], outputs["seen"]
        return {"byol": distance(a, seen_b) + distance(b, seen_a)}


def distance(predicted, seen):
    cosine = ops.sum(ops.normalize(predicted, axis=-1) * ops.normalize(seen, axis=-1), axis=-1)
    return 2 - 2 * cosine


def probe(encoder, images, labels):
    """The accuracy of a linear classifier that saw 100 labels."""
    features = ops.convert_to_numpy(encoder(images, training=False))
    few = min(100, len(labels) // 2)
    parts = train_test_split(features, labels, train_size=few, random_state=0)
    linear = make_pipeline(StandardScaler(), LogisticRegression(max_iter=2000))
    return linear.fit(parts[0], parts[2]).score(parts[1], parts[3])


def main(epochs=20, samples=1797, folder="pictures", seed=0):
    keras.utils.set_random_seed(seed)
    images, labels = load_digits(return_X_y=True)
    images, labels = images[:samples].reshape(-1, 8, 8, 1).astype("float32") / 16, labels[:samples]

    byol = BYOL().setup(images[:64])
    encoder = byol.online.layers[0]
    before = probe(encoder, images, labels)
    history = byol.fit(images, batch_size=64, epochs=epochs, verbose=2)
    after = probe(encoder, images, labels)
    print(
        f"linear probe of 100 labels: {before:.3f} on random features, {after:.3f} on learned ones"
    )
    Path(folder).mkdir(parents=True, exist_ok=True)
    byol.picture().save(f"{folder}/byol.svg")
    ml.plot.history(history).savefig(f"{folder}/byol.png")
    return {"before": before, "after": after}


if __name__ == "__main__":
    main()

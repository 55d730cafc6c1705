"""A system trained on batches of which some hold NaN."""

import warnings

import keras
import numpy as np
from keras import layers, ops
from toys import Scale

import mlsystem as ml

OPTIMIZERS = {
    "adam": lambda: keras.optimizers.Adam(0.1),
    "momentum": lambda: keras.optimizers.SGD(0.1, momentum=0.9),
    "averaging": lambda: keras.optimizers.Adam(0.1, use_ema=True, ema_overwrite_frequency=2),
    "accumulating": lambda: keras.optimizers.SGD(0.1, gradient_accumulation_steps=2),
    "decaying": lambda: keras.optimizers.AdamW(
        keras.optimizers.schedules.ExponentialDecay(0.1, 1, 0.5), weight_decay=0.1
    ),
}


class Fragile(ml.MLSystem):
    """Batch norm, a metric, an average, and a second model that NaN does not reach."""

    def __init__(self, optimizer=OPTIMIZERS["adam"]):
        super().__init__()
        net = keras.Sequential([layers.Dense(3), layers.BatchNormalization(), layers.Dense(1)])
        self.net = ml.MLModel(net, loss="mse", metrics=["mae"], optimizer=optimizer())
        self.other = Scale(1.0, keras.optimizers.SGD(0.1))
        self.average = ml.EMA(self.net, momentum=0.5)

    routing = "own"

    def forward(self, x, training=None):
        return {"net": self.net(x["net"], training=training), "other": self.other(x["other"])}

    def compute_losses(self, x, y, outputs):
        return super().compute_losses(x, y, outputs) | {"other": ops.mean(outputs["other"] ** 2)}


def data(bad=(), value=np.nan):
    rng = np.random.default_rng(0)
    x = rng.normal(size=(6, 4, 2)).astype("float32")
    y = x.sum(axis=-1, keepdims=True)
    for batch in bad:
        x[batch, 1, 0] = value
    return x.reshape(-1, 2), y.reshape(-1, 1)


def state(system, part):
    found = [*part.weights, *system.average.weights]
    found += system.optimizers["net"].variables if part is system.net else []
    return [np.array(ops.convert_to_numpy(v)) for v in found]


def trained(bad, optimizer="adam", value=np.nan, drop=False, eager=False, **given):
    """A system trained on six batches, some bad, or left out, and its logs."""
    keras.utils.set_random_seed(0)
    system = Fragile(OPTIMIZERS[optimizer])
    for name, choice in given.items():
        setattr(system, name, choice)
    system.compile(run_eagerly=eager)
    x, y = data(() if drop else bad, value)
    keep = np.repeat([not (drop and i in bad) for i in range(6)], 4)
    inputs = {"net": x[keep], "other": np.ones((keep.sum(), 1), "float32")}
    with warnings.catch_warnings(record=True) as said:
        warnings.simplefilter("always")
        logs = system.fit(inputs, {"net": y[keep]}, batch_size=4, shuffle=False, verbose=0).history
    texts = [str(warning.message) for warning in said]
    return system, logs, [text for text in texts if "finite" in text]

"""The rehearsal of a step, which needs no numbers where the step needs none."""

import warnings

import keras
import numpy as np
import pytest
from keras import ops
from toys import Pair, Scale, Target, number, ones

import mlsystem as ml
from mlsystem.engine import engine


def has_numbers(x):
    try:
        ops.convert_to_numpy(x)
    except Exception:
        return False
    return True


class Everything(Pair):
    """Two models with what assigns variables in a step of its own, on top of the update."""

    def __init__(self):
        super().__init__()
        self.norm = keras.layers.BatchNormalization()
        self.dense = keras.layers.Dense(1, kernel_regularizer="l2")
        self.noise = keras.layers.GaussianNoise(0.1)
        self.target = ml.EMA(self.b, momentum=0.5)
        self.seen = []

    def forward(self, x, training=None):
        self.seen.append(has_numbers(x))
        a = self.a(self.noise(self.norm(x, training=training), training=training))
        b = self.b(self.dense(a))
        return {"a": a, "b": b, "target": self.target(a)}

    def train_step(self, data):
        [gradient] = self.gradients(data, "b")["b"]
        weight = self.b.weight
        weight.assign_add(0.1 * gradient)  # and then the gradient is taken anew
        self.update(data, ["b", "dense", "norm"], when=gradient < 1e9)
        weight.assign_sub(0.1 * gradient)
        x, _, _ = keras.utils.unpack_x_y_sample_weight(data)
        self.minimize(lambda: ops.mean(self.a(x) ** 2), "a", name="size")
        self.log("weight", weight)
        return self.get_metrics_result()


def test_nothing_runs_on_numbers_before_training(monkeypatch):
    monkeypatch.setattr(engine, "LARGE", 0)
    system, x = Everything(), np.tile(ones(8), 3)
    system.setup(x)
    before = [np.array(v) for v in system.get_weights()]
    system.seen.clear()
    with pytest.raises(ZeroDivisionError):
        system.fit(x, batch_size=4, verbose=0, callbacks=[Stop()])
    assert system.seen == [False] * 2  # the step takes two gradients
    for old, new in zip(before, system.get_weights(), strict=True):
        np.testing.assert_array_equal(old, new)
    logs = system.fit(x, batch_size=4, verbose=0).history
    assert {"loss", "b_loss", "size_loss", "weight"} <= logs.keys()
    assert not any(system.seen)


class Stop(keras.callbacks.Callback):
    def on_train_begin(self, logs=None):
        raise ZeroDivisionError


class Noisy(Pair):
    """Adds noise that has no seed of its own where Keras allows that in a compiled step."""

    def __init__(self):
        super().__init__()
        self.noise = keras.random.SeedGenerator(0) if keras.backend.backend() == "jax" else None

    def forward(self, x):
        return super().forward(x + keras.random.normal((), seed=self.noise))


def test_the_rehearsal_draws_nothing_from_the_seed_of_all(monkeypatch):
    monkeypatch.setattr(engine, "LARGE", 0)
    found = []
    for run_eagerly in (False, True):
        keras.utils.set_random_seed(3)
        system = Noisy()
        system.compile(run_eagerly=run_eagerly)
        found.append(system.fit(ones(), verbose=0).history["loss"])
    assert found[0] == pytest.approx(found[1], rel=1e-5)


class Born(Scale):
    """Counts its steps in a metric that is made in the first."""

    def loss(self, x, y, outputs):
        return ops.mean(outputs)

    def train_step(self, data):
        self.update(data)
        self.log("one", ops.ones(()))
        return self.get_metrics_result()


def test_what_is_logged_in_the_rehearsal_is_not_counted():
    model = Born()
    logs = model.fit(ones(), verbose=0).history
    assert logs["one"] == [1.0] and logs["loss"] == [1.0]
    assert number(model.weight) == pytest.approx(0.9)  # d/dw of mean(w) is 1


class Once(Target):
    """Warns once."""

    warned = False

    def loss(self, x, y, outputs):
        if not Once.warned:
            Once.warned = True
            warnings.warn("said once", stacklevel=2)
        return super().loss(x, y, outputs)


def test_a_warning_in_the_rehearsal_is_not_lost():
    system = Pair()
    system.a = Once()
    Once.warned = False
    with pytest.raises(UserWarning, match="said once"):
        system.fit(ones(), verbose=0)

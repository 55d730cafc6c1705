"""EMA copies follow their source by the rule, and are models."""

import keras
import numpy as np
import pytest
from keras import layers, ops
from toys import Scale, number, ones

import mlsystem as ml


class Followed(ml.MLSystem):
    """One weight w that each step moves by -0.1, and a copy."""

    def __init__(self, **kwargs):
        super().__init__()
        self.model = Scale(1.0)
        self.copy = ml.EMA(self.model, **kwargs)

    def forward(self, x):
        return {"model": self.model(x), "copy": self.copy(x)}

    def compute_losses(self, x, y, outputs):
        return {"model": ops.mean(outputs["model"])}


def run(steps, **kwargs):
    system = Followed(**kwargs)
    system.fit(ones(4 * steps), batch_size=4, verbose=0)
    assert number(system.model.weight) == pytest.approx(1 - 0.1 * steps, rel=1e-5)
    return number(system.copy.averages[0])


def test_the_copy_follows_after_each_update():
    expected = 1.0
    for step in range(1, 4):
        expected = 0.9 * expected + 0.1 * (1 - 0.1 * step)
    assert run(3, momentum=0.9) == pytest.approx(expected, rel=1e-5)


def test_every_second_update():
    assert run(3, momentum=0.5, every=2) == pytest.approx(0.5 * 1 + 0.5 * 0.8, rel=1e-5)


def test_momentum_may_be_a_schedule_of_the_updates_before():
    schedule = keras.optimizers.schedules.PiecewiseConstantDecay([0, 1], [0.0, 0.5, 1.0])
    assert run(3, momentum=schedule) == pytest.approx(0.5 * 0.9 + 0.5 * 0.8, rel=1e-5)


def test_it_starts_equal_to_its_source_and_is_called_in_inference_mode():
    net = keras.Sequential([layers.Dense(3), layers.BatchNormalization(), layers.Dropout(0.5)])
    source = ml.MLModel(net)
    copy = ml.EMA(source)
    x = np.random.default_rng(0).normal(size=(4, 2)).astype("float32")
    first = ops.convert_to_numpy(copy(x, training=False))
    copy.start()
    np.testing.assert_array_equal(ops.convert_to_numpy(copy(x)), ops.convert_to_numpy(source(x)))
    assert copy.trainable_weights == [] and first.shape == (4, 3)


class Subclassed(keras.Model):
    def __init__(self, units, activation=lambda x: x):
        super().__init__()
        self.dense, self.activation = layers.Dense(units), activation
        self.norm = layers.BatchNormalization(momentum=0.5)

    def call(self, x, training=None):
        return self.activation(self.norm(self.dense(x), training=training))


@pytest.mark.parametrize("wrap", [lambda net: net, ml.MLModel])
def test_subclassed_models_and_batch_norm_statistics(wrap):
    class System(ml.MLSystem):
        def __init__(self):
            super().__init__()
            self.online = wrap(Subclassed(2))
            self.target = ml.EMA(self.online, momentum=0.75)

        def forward(self, x, training=None):
            return {"a": self.online(x, training=training), "b": self.target(x)}

        def compute_losses(self, x, y, outputs):
            return {"online": ops.mean((outputs["a"] - outputs["b"]) ** 2)}

    x = np.random.default_rng(0).normal(size=(8, 3)).astype("float32")
    system = System().setup(x)
    start = [ops.convert_to_numpy(w).copy() for w in system.online.weights]
    system.train_on_batch(x)
    assert len(system.target.averages) == len(start)
    for before, now, average in zip(
        start, system.online.weights, system.target.averages, strict=True
    ):
        expected = 0.75 * before + 0.25 * ops.convert_to_numpy(now)
        np.testing.assert_allclose(ops.convert_to_numpy(average), expected, rtol=1e-5, atol=1e-7)
    assert list(system.optimizers) == ["online"]


def test_in_training_mode_its_own_statistics_move():
    source = Subclassed(2)
    x = np.random.default_rng(0).normal(size=(8, 3)).astype("float32") + 5
    source(x)
    copy = ml.EMA(source)
    mean = ops.convert_to_numpy(source.norm.moving_mean).copy()
    outputs = copy(x, training=True)
    assert abs(ops.convert_to_numpy(outputs).mean()) < 1e-3
    np.testing.assert_array_equal(ops.convert_to_numpy(source.norm.moving_mean), mean)
    index = [w is source.norm.moving_mean for w in source.weights].index(True)
    assert abs(ops.convert_to_numpy(copy.averages[index]) - mean).max() > 0.1


def test_it_predicts_and_is_no_part_of_its_source():
    source = ml.MLModel(keras.Sequential([layers.Dense(2)]))
    source(ones())
    copy = ml.EMA(source)
    source.set_weights([np.zeros((1, 2)), np.zeros(2)])
    assert np.abs(copy.predict(ones(), verbose=0)).max() > 0
    assert not set(map(id, copy.weights)) & set(map(id, source.weights))


class Inner(ml.MLSystem):
    """A model and its average; other systems call only the model."""

    def __init__(self):
        super().__init__()
        self.online = ml.MLModel(keras.Sequential([keras.layers.Dense(1)]))
        self.target = ml.EMA(self.online)

    def forward(self, x):
        return self.online(x)

    def compute_losses(self, x, y, outputs):
        return {"online": ops.mean(outputs["inner"] ** 2)}


class Outer(ml.MLSystem):
    def __init__(self):
        super().__init__()
        self.inner, self.head = Inner(), ml.MLModel(keras.layers.Dense(1))

    def forward(self, x):
        self.inner.target(x)
        inner = self.inner.online(x)
        return {"inner": inner, "head": self.head(inner)}

    def compute_losses(self, x, y, outputs):
        own = {"head": ops.mean(outputs["head"] ** 2)}
        return own | {"inner": self.inner.loss(x, y, outputs)}


@pytest.mark.once
def test_nested_systems_of_which_only_the_members_are_called_are_built():
    system = Outer().setup(ones())  # warnings are errors
    assert system.built and system.inner.built

"""A sweep and a search for a batch size leave no bit changed: training goes on as without them."""

import functools

import keras
import numpy as np
import pytest
from keras import layers, ops

import mlsystem as ml


class Noisy(ml.MLSystem):
    """Batch norm, dropout, noise, an averaged copy, and a model with a turn."""

    update_every = {"head": 2}  # noqa: RUF012

    def __init__(self):
        super().__init__()
        body = keras.Sequential([layers.Dense(3), layers.BatchNormalization(), layers.Dropout(0.5)])
        self.body = ml.MLModel(body, optimizer=keras.optimizers.Adam(0.01))
        self.head = ml.MLModel(layers.Dense(1), optimizer=keras.optimizers.SGD(0.01, momentum=0.9))
        self.copy = ml.EMA(self.body, momentum=0.9)
        self.seed = keras.random.SeedGenerator(3)

    def forward(self, x, training=None):
        noise = keras.random.normal(ops.shape(x), seed=self.seed)
        return self.head(self.body(x + noise, training=training))

    def compute_losses(self, x, y, outputs):
        self.log("size", ops.mean(ops.abs(outputs)))
        return {"error": ops.mean((outputs - y) ** 2, axis=-1)}


class Rows(keras.utils.PyDataset):
    """Draws its order, and counts how often it was read."""

    def __init__(self):
        super().__init__()
        self.generator, self.read = np.random.default_rng(0), 0
        self.order = self.generator.permutation(12)

    def __len__(self):
        return 3

    def __getitem__(self, index):
        self.read += 1
        rows = self.order[4 * index : 4 * index + 4]
        return rows[:, None].astype("float32") / 12, np.ones((4, 1), "float32")

    def on_epoch_end(self):
        self.order = self.generator.permutation(12)


def transformed():
    """Data whose transform draws from a generator of its own."""
    generator = np.random.default_rng(1)

    def shifted(x):
        return x + generator.normal(size=x.shape).astype("float32")

    x = np.arange(12, dtype="float32")[:, None]
    return ml.MLData(train=(x, x), batch_size=4, transform=shifted)


def streams():
    """Arrays in two orders that are drawn anew in each pass."""
    x = np.arange(12, dtype="float32")[:, None]
    return ml.MLData(train=ml.Streams({"a": (x, x), "b": (x, x)}, batch_size=4), transform=joined)


def joined(x, y):
    return x["a"] - x["b"], y["a"]


def state(system):
    """All that a step reads or writes, as arrays."""
    return [ops.convert_to_numpy(v) for v in system._mlsystem.state_variables()]


def trained(make, tune):
    """The logs, the state and a random number after two calls of `fit`, with `tune` around them."""
    keras.utils.set_random_seed(0)
    system, data, logs = Noisy(), make(), []
    tune(system, data)
    for _ in range(2):
        logs.append(system.fit(data, verbose=0).history)
        before, history = state(system), system.history
        tune(system, data)
        assert system.history is history and system.head.trainable
        assert_same(before, state(system))
    return logs, state(system), np.random.random()


@functools.cache
def plainly_trained(make):
    return trained(make, lambda system, data: None)


def assert_same(values, others):
    for old, new in zip(values, others, strict=True):
        np.testing.assert_array_equal(old, new)


def assert_undisturbed(make, tune):
    logs, values, drawn = trained(make, tune)
    same_logs, same_values, same_drawn = plainly_trained(make)
    assert logs == same_logs and drawn == same_drawn
    assert_same(values, same_values)


@pytest.mark.once
def test_training_goes_on_as_without_a_sweep():
    def tune(system, data):
        found = ml.tune.learning_rate(system, data, steps=10)
        assert found.keys() == {"body", "head"}
        ml.tune.batch_size(system, data, start=2, limit=2, steps=1)

    assert_undisturbed(Rows, tune)


@pytest.mark.once
@pytest.mark.parametrize("make", [transformed, streams])
def test_the_place_in_the_data_is_put_back(make):
    assert_undisturbed(make, lambda system, data: ml.tune.learning_rate(system, data, steps=10))


@pytest.mark.once
def test_others_are_not_frozen_afterwards():
    assert_undisturbed(
        Rows, lambda s, data: ml.tune.learning_rate(s, data, "head", steps=10, others="freeze")
    )


def test_rates_do_not_compile_again():
    traces = []

    class Counted(ml.MLModel):
        def loss(self, x, y, outputs):
            traces.append(1)
            return ops.mean(outputs**2)

    model = Counted(layers.Dense(1))
    x = np.ones((8, 2), "float32")
    model.fit(x, batch_size=4, verbose=0)
    before = len(traces)
    ml.tune.learning_rate(model, x, steps=10, batch_size=4)
    assert len(traces) == before

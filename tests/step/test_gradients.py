"""Routed gradients against finite differences, through every kind of operation that is special."""

import keras
import numpy as np
import pytest
from keras import layers, ops

import mlsystem as ml


@ops.custom_gradient
def doubled_backwards(x):
    """x forwards, 2 backwards."""

    def grad(*args, upstream=None):
        upstream = args[0] if upstream is None else upstream
        return ops.multiply(upstream, 2.0)

    return x, grad


def nets():
    return {
        "recurrent": [layers.LSTM(3), layers.Dense(1)],
        "convolution": [layers.Conv1D(3, 2, activation="gelu"), layers.Flatten(), layers.Dense(1)],
        "normalized": [layers.Dense(3), layers.LayerNormalization(), layers.Flatten()],
        "attention": [SelfAttention(), layers.Flatten(), layers.Dense(1)],
        "rectified": [layers.Dense(5, activation="relu"), layers.GlobalMaxPooling1D()],
    }


class SelfAttention(layers.Layer):
    def __init__(self):
        super().__init__()
        self.attention = layers.MultiHeadAttention(2, 3)

    def build(self, shape):
        self.attention.build(shape, shape)

    def call(self, x):
        return self.attention(x, x)


class Twins(ml.MLSystem):
    """Two models of which the second reads the first, each blamed for its own."""

    routing = {"first": {"a": 1.0, "b": 0.5}, "second": {"b": -2.0}}  # noqa: RUF012

    def __init__(self, first):
        super().__init__()
        self.first = ml.MLModel(keras.Sequential(first))
        self.second = ml.MLModel(keras.Sequential([layers.Dense(2, activation="tanh")]))

    def forward(self, x):
        first = self.first(x)
        return {"first": first, "second": self.second(first)}

    def compute_losses(self, x, y, outputs):
        return {"a": ops.mean(outputs["first"] ** 2), "b": ops.mean(ops.sin(outputs["second"]))}


def value(system, x, row):
    losses = system.compute_losses(x, None, system(x))
    return sum(w * float(ops.convert_to_numpy(losses[name])) for name, w in row.items())


def difference(system, x, name, weight, direction, epsilon=1e-2):
    """The central difference of the routed loss as one weight moves in a direction."""
    row, start = system.routing[name], ops.convert_to_numpy(weight).copy()
    ends = []
    for step in (epsilon, -epsilon):
        weight.assign(start + step * direction)
        ends.append(value(system, x, row))
    weight.assign(start)
    return (ends[0] - ends[1]) / (2 * epsilon)


def directions(shape, count=2):
    """Directions of length 1, in which all entries of a weight move."""
    rng = np.random.default_rng(1)
    found = rng.normal(size=(count, *shape)).astype("float32")
    return [d / np.linalg.norm(d) for d in found]


@pytest.mark.parametrize("kind", list(nets()))
@pytest.mark.spread
def test_routed_gradients_equal_finite_differences(kind):
    x = np.random.default_rng(0).normal(size=(4, 5, 3)).astype("float32")
    system = Twins(nets()[kind]).setup(x)
    gradients = system.gradients(x)
    for name, model in system._mlsystem.models().items():
        for weight, gradient in zip(model.trainable_weights, gradients[name], strict=True):
            for direction in directions(weight.shape):
                slope = np.sum(ops.convert_to_numpy(gradient) * direction)
                expected = difference(system, x, name, weight, direction)
                assert slope == pytest.approx(expected, rel=2e-2, abs=2e-3)


@pytest.mark.parametrize("eagerly", [False, True])
@pytest.mark.parametrize("kind", ["recurrent", "convolution"])
@pytest.mark.spread
def test_the_compiled_step_applies_the_same_gradients(kind, eagerly):
    x = np.random.default_rng(0).normal(size=(4, 5, 3)).astype("float32")
    system = Twins(nets()[kind])
    system.compile(optimizer=keras.optimizers.SGD(1.0), run_eagerly=eagerly)
    system.setup(x)
    gradients = {k: [ops.convert_to_numpy(g) for g in v] for k, v in system.gradients(x).items()}
    before = {k: [ops.convert_to_numpy(w).copy() for w in m.trainable_weights]
              for k, m in system._mlsystem.models().items()}  # fmt: skip
    system.train_on_batch(x)
    for name, model in system._mlsystem.models().items():
        moved = zip(model.trainable_weights, before[name], gradients[name], strict=True)
        for weight, start, gradient in moved:
            found = start - ops.convert_to_numpy(weight)
            np.testing.assert_allclose(found, gradient, rtol=1e-4, atol=1e-6)


def test_a_custom_gradient_is_kept():
    class Custom(ml.MLSystem):
        def __init__(self):
            super().__init__()
            self.dense = ml.MLModel(keras.Sequential([layers.Dense(1, use_bias=False)]))

        def forward(self, x):
            return doubled_backwards(self.dense(x))

        def compute_losses(self, x, y, outputs):
            return {"dense": ops.sum(outputs)}

    x = np.ones((2, 1), "float32")
    [gradient] = Custom().setup(x).gradients(x)["dense"]
    assert ops.convert_to_numpy(gradient).item() == pytest.approx(4.0)


def test_a_stopped_gradient_leaves_no_trace():
    class Stopped(Twins):
        routing = {"first": {"a": 1.0}, "second": {"b": 1.0}}  # noqa: RUF012

        def forward(self, x):
            first = self.first(x)
            return {"first": ops.stop_gradient(first), "second": self.second(first)}

    x = np.ones((2, 3), "float32")
    system = Stopped([layers.Dense(2)]).setup(x)
    with pytest.warns(UserWarning, match="'first'"):
        gradients = system.gradients(x)
    assert all(not ops.convert_to_numpy(g).any() for g in gradients["first"])
    assert all(ops.convert_to_numpy(g).any() for g in gradients["second"])

"""Gradients of an embedding, of which some rows are looked up more than once."""

import keras
import numpy as np
import pytest
from keras import layers, ops
from toys import number

import mlsystem as ml

IDS = np.array([0, 0, 1], "int32")  # the gradient of the mean: 2/3 and 1/3 in rows 0 and 1
NORM = np.sqrt(5) / 3


class Lookup(ml.MLSystem):
    """Losses a = mean(rows) and b = factor * mean(rows), and a step that scales the gradients."""

    def __init__(self, optimizer, factor=None, own=False):
        super().__init__()
        table = layers.Embedding(4, 1, embeddings_initializer="ones")
        self.table = ml.MLModel(table, optimizer=optimizer)
        self.factor, self.own = factor, own

    def forward(self, x):
        return ops.mean(self.table(x))

    def compute_losses(self, x, y, outputs):
        losses = {"a": outputs}
        return losses if self.factor is None else losses | {"b": self.factor * outputs}

    def train_step(self, data):
        if not self.own:
            return super().train_step(data)
        [gradient] = self.gradients(data)["table"]
        norm = ops.sqrt(ops.sum(gradient**2))
        self.apply_gradients({"table": [gradient / norm]})
        return self.get_metrics_result()

    def rows(self):
        return self.table.get_weights()[0][:, 0]


def fitted(*args, balance=None, **kwargs):
    system = Lookup(*args, **kwargs)
    system.balance = balance
    system.fit(IDS, batch_size=3, verbose=0)
    return system


def test_adam_squares_the_sum_of_the_rows():
    # Its first step moves each row that has a gradient by the learning rate.
    rows = fitted(keras.optimizers.Adam(0.1, epsilon=1e-12)).rows()
    np.testing.assert_allclose(rows, [0.9, 0.9, 1, 1], rtol=1e-5)


def test_clipping_takes_the_norm_of_the_sum_of_the_rows():
    rows = fitted(keras.optimizers.SGD(1.0, clipnorm=0.5)).rows()
    np.testing.assert_allclose(rows[:2], 1 - 0.5 * np.array([2, 1]) / np.sqrt(5), rtol=1e-5)


def test_a_step_of_ones_own_computes_with_the_gradient():
    rows = fitted(keras.optimizers.SGD(0.1), own=True).rows()
    np.testing.assert_allclose(rows[:2], 1 - 0.1 * np.array([2, 1]) / np.sqrt(5), rtol=1e-5)


def test_the_norms_are_those_of_the_sum():
    system = Lookup(keras.optimizers.SGD(0.1))
    assert system.gradient_report(IDS)["a"]["table"] == pytest.approx(NORM)
    norms = ml.callbacks.GradientNorms(every=1)
    history = system.fit(IDS, batch_size=3, verbose=0, callbacks=[norms]).history
    assert history["table_gradient_norm_a"] == [pytest.approx(NORM)]


def test_pcgrad_projects_the_sum():
    # The two gradients are opposite: nothing is left of either.
    system = fitted(keras.optimizers.SGD(0.1), -0.5, balance=ml.balance.PCGrad(seed=0))
    np.testing.assert_allclose(system.rows(), 1, atol=1e-6)


def test_gradnorm_compares_the_norms_of_the_sum():
    # Norms n and 2 n, with the mean 1.5 n: the weights go by n up and by 2 n down.
    gradnorm = ml.balance.GradNorm(["a", "b"], "table", 0.0, keras.optimizers.SGD(0.1))
    system = fitted(keras.optimizers.SGD(0.1), 2.0, balance=gradnorm)
    expected = np.array([1 + 0.1 * NORM, 1 - 0.2 * NORM]) * 2 / (2 - 0.1 * NORM)
    found = [number(system.balance.weight(name)) for name in ("a", "b")]
    np.testing.assert_allclose(found, expected, rtol=1e-5)


def test_grad_of_a_lookup_is_a_tensor():
    slope = ml.grad(lambda x: ops.take(x, IDS, axis=0))(ops.ones((4, 1)))
    np.testing.assert_allclose(ops.convert_to_numpy(slope**2)[:, 0], [4, 1, 0, 0])

"""What is a constant for a gradient, and what is not: the same on every backend."""

import keras
import numpy as np
import pytest
from keras import layers, ops
from toys import Scale, number, ones

import mlsystem as ml


class Centred(Scale):
    """h = w x, c = mean(h), loss = mean(h) + c: the gradient is mean(x) where c is a constant."""

    def __init__(self):
        super().__init__(1.0, keras.optimizers.SGD(1.0))
        self.c = self.add_weight(shape=(), initializer="zeros", trainable=False)

    def forward(self, x):
        h = super().forward(x)
        self.c.assign(ops.mean(h))
        return h + self.c

    def loss(self, x, y, outputs):
        return ops.mean(outputs)


class CentredInside(Centred):
    """The same inside `ml.grad`: the slope of sum(w x + c) in x is w."""

    def loss(self, x, y, outputs):
        def shifted(x):
            h = x * self.weight
            self.c.assign(ops.mean(h))
            return h + self.c

        return ops.mean(ml.grad(shifted)(x))


@pytest.mark.parametrize("eagerly", [False, True])
@pytest.mark.parametrize("kind", [Centred, CentredInside])
def test_state_that_is_assigned_is_a_constant(kind, eagerly):
    model = kind()
    model.compile(model.configure_optimizer(), run_eagerly=eagerly)
    model.fit(ones(), verbose=0)
    assert number(model.weight) == pytest.approx(0.0, abs=1e-6)
    assert number(model.c) == pytest.approx(1.0)


class Normalized(ml.MLModel):
    """Batch norm in training mode, and then in inference mode with the statistics just moved.

    With x of mean m and the statistics at 0 and 1 before: the moving mean becomes h = w m / 2, and
    the loss is mean(w x - h), of which the gradient is m where h is a constant.
    """

    def __init__(self):
        super().__init__(optimizer=keras.optimizers.SGD(1.0))
        self.dense = layers.Dense(1, use_bias=False, kernel_initializer="ones")
        self.norm = layers.BatchNormalization(momentum=0.5, center=False, scale=False)

    def forward(self, x, training=None):
        h = self.dense(x)
        self.norm(h, training=True)
        return ops.mean(h - self.norm.moving_mean, axis=-1)

    def loss(self, x, y, outputs):
        return ops.mean(outputs)


def test_statistics_that_have_just_moved_are_constants():
    model = Normalized()
    model.fit(np.array([[1.0], [3.0]], "float32"), verbose=0)
    np.testing.assert_allclose(model.dense.get_weights()[0], [[1.0 - 2.0]], atol=1e-6)


class Maml(ml.MLSystem):
    """w' = w - a w for the inner loss w^2 / 2, and the outer loss is w'^2 / 2.

    Its gradient is (1 - a) w', and w' where the inner gradient is a constant.
    """

    def __init__(self):
        super().__init__()
        self.model = Scale(1.0, keras.optimizers.SGD(0.1))

    def forward(self, x):
        return self.model(x)

    def outer_loss(self):
        weight = self.model.weight
        [slope] = self.gradients(lambda: ops.square(weight) / 2, "model")["model"]
        return ops.square(weight - 0.25 * slope) / 2

    def compute_losses(self, x, y, outputs):
        return {"model": ops.square(ops.mean(outputs))}

    def train_step(self, data):
        self.minimize(self.outer_loss, "model")
        return self.get_metrics_result()


@pytest.mark.parametrize("eagerly", [False, True])
def test_gradients_inside_a_loss_can_be_differentiated(eagerly):
    system = Maml()
    system.compile(run_eagerly=eagerly)
    system.fit(ones(), verbose=0)
    assert number(system.model.weight) == pytest.approx(1 - 0.1 * 0.75 * 0.75, rel=1e-5)


def test_gradients_outside_a_step_are_numbers():
    system = Maml().setup(ones())
    [slope] = system.gradients(ones())["model"]
    assert number(slope) == pytest.approx(2.0)

"""What a skipped update leaves as it was: all that `forward` has assigned, on any dtype."""

import warnings

import keras
import numpy as np
import pytest
from keras import layers, ops
from toys import Scale, number

import mlsystem as ml

SGD = keras.optimizers.SGD
each = pytest.mark.parametrize("eager", [False, True], ids=["compiled", "eager"])


class Mean(layers.Layer):
    """A running mean of its inputs, without anything to train."""

    def build(self, shape):
        self.mean = self.add_weight(shape=(), initializer="zeros", trainable=False, name="mean")
        self.calls = self.add_weight(shape=(), dtype="int32", trainable=False, name="calls")

    def call(self, x):
        self.mean.assign(0.5 * self.mean + 0.5 * ops.cast(ops.mean(x), self.mean.dtype))
        self.calls.assign_add(1)
        return x


class Stateful(ml.MLSystem):
    """loss = a x, from state that the system, a frozen model, a layer and a copy hold."""

    def __init__(self, optimizer):
        super().__init__()
        self.a = Scale(1.0, optimizer)
        self.frozen = keras.Sequential([Mean()])
        self.frozen.trainable = False
        self.plain = Mean()
        norm = layers.BatchNormalization(momentum=0.5)
        self.norm = ml.MLModel(keras.Sequential([norm]), optimizer=SGD(0.0))
        self.copy = ml.EMA(self.norm, momentum=0.5)
        self.queue = self.add_weight(shape=(2,), initializer="zeros", trainable=False, name="queue")
        self.still = self.add_weight(shape=(), initializer="ones", trainable=False, name="still")

    routing = "own"

    def forward(self, x, training=None):
        self.queue.assign(ops.stack([self.queue[1], ops.mean(x)]))
        x = self.plain(self.frozen(x))
        small = x * 1e-30
        self.copy(small, training=training)
        return {"a": self.a(x), "norm": self.norm(small, training=training)}

    def compute_losses(self, x, y, outputs):
        return {name: ops.mean(value) for name, value in outputs.items()}

    def held(self):
        names = ("mean", "calls")
        means = [getattr(layer, n) for layer in (self.frozen.layers[0], self.plain) for n in names]
        copied = self.copy._mlsystem.averaged_state()
        state = [*means, *self.norm.non_trainable_weights, *copied, self.queue, self.still]
        return [ops.convert_to_numpy(v) for v in [self.a.weight, *self.copy.averages, *state]]


def fit(optimizer, x, eager=False, **given):
    system = Stateful(optimizer)
    for name, value in given.items():
        setattr(system, name, value)
    system.compile(run_eagerly=eager)
    x = np.repeat(np.array(x, "float32").reshape(-1, 1), 2, axis=0)
    with warnings.catch_warnings(record=True) as said:
        warnings.simplefilter("always")
        logs = system.fit(x, batch_size=2, shuffle=False, verbose=0).history
    return system, logs, [str(one.message) for one in said if "finite" in str(one.message)]


OPTIMIZERS = {
    "plain": lambda: SGD(0.1),
    "scaling": lambda: keras.optimizers.LossScaleOptimizer(SGD(0.1), initial_scale=4.0),
}


@each
@pytest.mark.parametrize("optimizer", OPTIMIZERS)
@pytest.mark.spread
def test_all_state_is_that_without_the_batch(optimizer, eager):
    system, logs, said = fit(OPTIMIZERS[optimizer](), [1, np.nan, 3], eager)
    spared, expected, _ = fit(OPTIMIZERS[optimizer](), [1, 3], eager)
    assert list(ops.convert_to_numpy(system.queue)) == [1.0, 3.0]
    assert number(system.plain.mean) == number(system.frozen.layers[0].mean) == 1.75
    assert number(system.plain.calls) == 2 and number(system.still) == 1.0
    assert number(system.a.weight) == pytest.approx(1 - 0.1 - 0.3)
    for a, b in zip(system.held(), spared.held(), strict=True):
        np.testing.assert_allclose(a, b, rtol=1e-5)
    assert logs["a_loss"] == pytest.approx([(1 + 2.7) / 2])
    assert expected["a_loss"] == pytest.approx([(1 + 2.7) / 2])
    assert logs["a_skipped"] == [1] and len([text for text in said if "'a'" in text]) == 1
    if optimizer == "scaling":
        assert number(system.optimizers["a"].dynamic_scale) == 2.0


@each
def test_an_overflow_of_the_scale_is_neither_counted_nor_said(eager):
    # 1e38 is finite, and overflows when it is scaled by 4, not by 2
    system, logs, said = fit(OPTIMIZERS["scaling"](), [1, 1e38, 3], eager)
    assert number(system.optimizers["a"].dynamic_scale) == 2.0
    assert number(system.a.weight) == pytest.approx(1 - 0.1 - 0.3)
    assert list(ops.convert_to_numpy(system.queue)) == [1.0, 3.0]
    assert logs["a_loss"] == pytest.approx([(1 + 2.7) / 2])
    assert "a_skipped" not in logs and said == []


def test_raise_ends_training_under_loss_scaling():
    with pytest.raises(FloatingPointError, match="'a' is not finite on batch 2"):
        fit(OPTIMIZERS["scaling"](), [1, np.inf, 3], nonfinite="raise")


def test_gradients_and_minimize_put_back_too():
    class Own(Stateful):
        def train_step(self, data):
            self.apply_gradients(dict(self.gradients(data, "a")))
            x = data[0] if isinstance(data, tuple) else data
            self.minimize(lambda: ops.mean(self.plain(x)) * self.a.weight, "a", name="own")
            return self.get_metrics_result()

    system = Own(SGD(0.0))
    x = np.array([[1.0], [np.nan], [3.0]], "float32")
    with pytest.warns(UserWarning, match="'a' is not finite"):
        system.fit(x, batch_size=1, shuffle=False, verbose=0)
    assert list(ops.convert_to_numpy(system.queue)) == [1.0, 3.0]
    assert number(system.plain.mean) == (((0.5 + 1) / 2 + 3) / 2 + 3) / 2


def test_two_forward_passes_before_one_update():
    class Sharp(Stateful):
        def train_step(self, data):
            self.gradients(data, "a")
            self.apply_gradients(self.gradients(data, "a"))
            return self.get_metrics_result()

    system = Sharp(SGD(0.0))
    x = np.array([[1.0], [np.nan], [3.0]], "float32")
    with pytest.warns(UserWarning, match="'a' is not finite"):
        system.fit(x, batch_size=1, shuffle=False, verbose=0)
    assert list(ops.convert_to_numpy(system.queue)) == [3.0, 3.0]


class Root(Scale):
    """A loss of 0 whose gradient is NaN, whatever it is scaled by."""

    def loss(self, x, y, outputs):
        return ops.mean(ops.sqrt(0.0 * ops.cast(outputs["a"], "float32")))


class Rooted(ml.MLSystem):
    def __init__(self):
        super().__init__()
        scaling = keras.optimizers.LossScaleOptimizer(SGD(0.1), initial_scale=4.0)
        self.a = Root(1.0, scaling, dtype="mixed_float16")
        self.nonfinite = "raise"

    def forward(self, x):
        return {"a": self.a(x)}


def test_a_gradient_that_no_scale_makes_finite_ends_training():
    with pytest.raises(FloatingPointError, match=r"'a' is not finite on batch [234]"):
        Rooted().fit(np.ones((8, 1), "float32"), batch_size=1, verbose=0)

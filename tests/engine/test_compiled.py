"""A compiled step gives what the same step gives run eagerly: logs, weights, optimizers, seeds."""

import keras
import numpy as np
import parity_systems
import pytest
from compared import WEIGHT, X, Y, agree, compiled, equal, fitted, net, same_start, sgd, state
from keras import layers, ops
from own_steps import Gated, Maml, Minimized, One, Reptile, SharpnessAware
from toys import KERAS, Pair, Scale, TinyGAN, number, ones

import mlsystem as ml

BACKEND = keras.backend.backend()
ROWS = np.stack([X, X + 1, X * 2], axis=1)


# Whole systems ------------------------------------------------------------------------------


@pytest.mark.parametrize("name", parity_systems.SYSTEMS)
def test_twenty_steps(name):
    if BACKEND != "torch" and name != "wgan_gp":
        pytest.skip("slow when run eagerly, and compiled in test_parity.py")
    losses, weights, history = parity_systems.train(name)
    expected, expected_weights, expected_history = parity_systems.train(name, run_eagerly=True)
    assert losses.shape == expected.shape and len(losses) == 20
    np.testing.assert_allclose(losses, expected, rtol=1e-5, atol=1e-6)
    np.testing.assert_allclose(weights, expected_weights, rtol=1e-4, atol=1e-6)
    equal(history, expected_history)


@pytest.mark.skipif(BACKEND == "torch", reason="inductor is in test_captured.py")
def test_xla_is_asked_for():
    def build():
        return net(layers.Conv1D(2, 2), layers.BatchNormalization(), layers.Flatten())

    learner, *logs = fitted(build, ROWS, Y, compile={"jit_compile": True})
    eager, *expected = fitted(build, ROWS, Y, run_eagerly=True)
    equal(logs, expected)
    equal(state(learner), state(eager), rtol=1e-4)


# What is in a step --------------------------------------------------------------------------


def batch_norm():
    return net(layers.Dense(4, use_bias=False), layers.BatchNormalization(momentum=0.5))


def random_layers():
    return net(layers.Dropout(0.5, seed=1), layers.GaussianNoise(0.1, seed=2), layers.Dropout(0.2))


class Noisy(ml.MLSystem):
    """Two weights, and noise from keras.random."""

    def __init__(self):
        super().__init__()
        self.a, self.b = (Scale(w, keras.optimizers.SGD(0.01)) for w in (1.0, 2.0))
        self.seed = keras.random.SeedGenerator(3)

    def forward(self, x):
        a = self.a(x) + keras.random.normal(ops.shape(x), seed=self.seed)
        b = self.b(a) * keras.random.uniform(ops.shape(x), 0.5, 1.5, seed=self.seed)
        return a + keras.random.dropout(b, 0.3, seed=self.seed)

    def compute_losses(self, x, y, outputs):
        return {"a": ops.mean(outputs**2), "b": ops.mean((outputs - 1) ** 2)}


class Added(layers.Layer):
    def call(self, x):
        self.add_loss(0.1 * ops.mean(x**2))
        return x


def regularized():
    return net(layers.Dense(4, kernel_regularizer="l2", activity_regularizer="l1"), Added())


def gan(**given):
    def build():
        system = TinyGAN()
        for name, value in given.items():
            setattr(system, name, value)
        return system

    return build


class Rising(Gated):
    """The judge learns from the second batch on."""

    def train_step(self, data):
        self.update(data, models="generator")
        self.update(data, models="discriminator", when=self.optimizer.iterations > 0)
        return self.get_metrics_result()


class Chosen(One):
    """Learns only from batches whose mean is above 0.5, by either of two branches."""

    def train_step(self, data):
        [gradient] = self.gradients(data)["model"]
        big = ops.mean(data[0]) > 0.5
        factor = ops.cond(big, lambda: self.model.weight * 2.0, lambda: ops.zeros(()))
        self.apply_gradients({"model": [gradient * factor]})
        return self.get_metrics_result()


STEPS = {
    "batch norm": batch_norm,
    "random layers": random_layers,
    "noise": Noisy,
    "regularizers and add_loss": regularized,
    "phases": gan(phases=("discriminator", "discriminator", "generator")),
    "update_every": gan(update_every={"generator": 3}),
    "phases and update_every": gan(
        phases=("discriminator", "generator"), update_every={"generator": 2}
    ),
    "when": Rising,
    "cond": Chosen,
    "sharpness-aware": SharpnessAware,
    "maml": Maml,
    "reptile": Reptile,
    "minimize and update": Minimized,
}


@pytest.mark.parametrize("build", STEPS.values(), ids=STEPS)
def test_the_step(build):
    alone = build in (batch_norm, random_layers, regularized)
    data = (X[:16], Y[:16]) if alone else (X[:16, :1],)
    agree(build, *data, epochs=2)


class Measured(ml.MLSystem):
    """Two regressors, with all that a step may log."""

    def __init__(self):
        super().__init__()
        self.a = ml.MLModel(layers.Dense(2), loss="mse", metrics=["mae"], optimizer=sgd())
        self.b = ml.MLModel(layers.Dense(2), optimizer=sgd())
        self.largest = keras.metrics.Mean(name="largest")

    def forward(self, x):
        self.log("size", ops.sum(ops.abs(x), axis=-1))
        return {"a": self.a(x), "b": self.b(x)}

    def compute_losses(self, x, y, outputs):
        self.largest.update_state(ops.max(x))
        apart = ops.mean((outputs["a"] - outputs["b"]) ** 2, axis=-1)
        return super().compute_losses(x, y, outputs) | {"apart": {"far": apart, "near": -apart / 2}}


def test_metrics_logs_weights_and_validation():
    given = {
        "compile": {"loss": {"b": "mae"}, "metrics": {"b": ["mse"]}, "weighted_metrics": ["mae"]},
        "epochs": 2,
        "sample_weight": WEIGHT,
        "validation_data": (X[:6], Y[:6], WEIGHT[:6]),
    }
    system = agree(Measured, X, Y, **given)
    names = {"loss", "a_loss", "b_loss", "apart_far", "a_mae", "b_mse", "size", "largest"}
    assert names <= set(system.history.history)
    assert {f"val_{name}" for name in names} <= set(system.history.history)
    tested = system.evaluate(X, Y, batch_size=4, verbose=0, return_dict=True)
    system.compile(**given["compile"], run_eagerly=True)
    equal(tested, system.evaluate(X, Y, batch_size=4, verbose=0, return_dict=True))


def test_mixed_float16():
    def build():
        keras.config.set_dtype_policy("mixed_float16")  # until the session is cleared
        return Pair()

    pair = agree(build, ones(40), compile={"optimizer": "sgd"})
    assert 0 < number(pair.optimizers["a"].iterations) < 10  # the first overflow


# Between batches ----------------------------------------------------------------------------

ROUTE = keras.Variable(1.0, trainable=False)


def set_rate(system, batch):
    system.optimizers["b"].learning_rate = 0.1 / (batch + 1)


def set_weight(system, batch):
    system.a.weight.assign(1.0)


def set_route(system, batch):
    ROUTE.assign(1.0 - batch)


@pytest.mark.parametrize("act", [set_rate, set_weight, set_route])
@pytest.mark.spread
def test_what_callbacks_assign_holds_from_the_next_batch(act):
    def build():
        ROUTE.assign(1.0)
        pair = Pair()
        pair.routing = {"a": {"a": ROUTE, "b": 1.0}, "b": {"b": ROUTE}}
        return pair

    changed = agree(build, ones(12), act=act)
    unchanged = fitted(build, ones(12))[0]
    assert number(changed.b.weight) != pytest.approx(number(unchanged.b.weight), rel=1e-3)


def test_freezing_a_layer_between_fits():
    def run(**given):
        same_start()
        model = compiled(net(), **given)
        model.fit(X, Y, batch_size=6, shuffle=False, verbose=0)
        first = model.net.layers[0]
        first.trainable, before = False, first.get_weights()
        model.compile(sgd(), loss="mse", **given)
        model.fit(X, Y, batch_size=6, shuffle=False, verbose=0)
        np.testing.assert_array_equal(first.get_weights()[0], before[0])
        return model

    equal(state(run()), state(run(run_eagerly=True)))


# Kinds of data ------------------------------------------------------------------------------


class Parts(ml.MLSystem):
    """Adds up all parts of the inputs, of whatever structure and type."""

    def __init__(self):
        super().__init__()
        self.model = Scale(2.0, sgd(0.01))

    def forward(self, x):
        parts = [p for p in keras.tree.flatten(x) if p is not None]
        weighed = [(i + 1) * ops.cast(part, "float32") for i, part in enumerate(parts)]
        return self.model(sum(weighed[1:], weighed[0]))

    def compute_losses(self, x, y, outputs):
        if isinstance(x, dict):
            outputs = outputs + 3 * ops.cast(x["b"], "float32")
        return {"model": ops.mean((outputs - (0.0 if y is None else y)) ** 2)}


A, B, C = X[:8, :1], X[:8, 1:2], Y[:8, :1]
DATA = {
    "x only": (A,),
    "dict in its own order": ({"b": B, "a": A}, C),
    "nested": (((A, {"z": B, "b": A}), A), C),
    "integers": ({"b": np.arange(8)[:, None] % 3, "a": A},),
    "booleans": ((A > 0, B),),
    "double precision": (A.astype("float64"), C.astype("float64")),
}
if KERAS >= (3, 15):  # before, Keras takes none
    DATA["a part that is None"] = ((A, None, B),)


@pytest.mark.parametrize("data", DATA.values(), ids=DATA)
@pytest.mark.once
def test_data(data):
    agree(Parts, *data)


def test_a_batch_that_is_its_own_target_and_then_is_not():
    def run(**given):
        system = compiled(Parts(), **given)
        a, b = ops.convert_to_tensor(A), ops.convert_to_tensor(B)
        return [system.train_on_batch(a, y, return_dict=True) for y in (a, b, a)]

    equal(run(), run(run_eagerly=True))

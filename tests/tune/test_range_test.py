"""What a learning rate range test finds, and what it refuses."""

import keras
import numpy as np
import pytest
from keras import ops
from toys import Pair, TinyGAN, ones

import mlsystem as ml
from mlsystem.tune import games

pytestmark = pytest.mark.once

CURVATURE = 8.0


class Bowl(ml.MLModel):
    """loss = 4 w^2, whose second derivative is 8: SGD diverges above a rate of 2 / 8."""

    def __init__(self, optimizer=None):
        super().__init__(optimizer=optimizer or keras.optimizers.SGD(0.01))
        self.weight = self.add_weight(shape=(), initializer="ones", name="weight")

    def forward(self, x):
        return x * self.weight

    def loss(self, x, y, outputs):
        return CURVATURE / 2 * ops.mean(outputs**2)


@pytest.mark.each_backend
def test_a_quadratic_loss_has_the_closed_form():
    found = ml.tune.learning_rate(Bowl(), ones(), between=(1e-4, 10.0), steps=60)
    [curve] = found.values()
    weights = np.cumprod(1 - CURVATURE * curve.rates)  # w <- w - r 8 w
    np.testing.assert_allclose(curve.losses, 4 * weights[: len(curve.losses)] ** 2, rtol=1e-3)
    np.testing.assert_allclose(curve.ratios, CURVATURE * curve.rates, rtol=1e-3)
    assert curve.source == "loss" and 1e-3 < curve.rate < 2 / CURVATURE
    assert curve.end == "Its loss was 4 times the best."
    assert 2 / CURVATURE < curve.rates[-1] < 10 * 2 / CURVATURE


def test_a_result_is_applied_printed_and_drawn():
    system = Pair()
    found = ml.tune.learning_rate(system, ones(), steps=20)
    assert list(found) == ["a", "b"] and float(system.optimizers["a"].learning_rate) > 0.09
    assert found.apply() == {name: curve.rate for name, curve in found.items()}
    for name, curve in found.items():
        assert float(system.optimizers[name].learning_rate) == pytest.approx(curve.rate)
        assert f"{curve.rate:.2g}" in str(found) and curve.reason in str(found)
    assert found._repr_svg_().count("<svg") == found["a"]._repr_svg_().count("<svg") == 1
    assert len(found.plot().axes) == 4
    with pytest.raises(KeyError, match="There are sweeps of 'a', 'b'"):
        found["c"]


def test_models_in_a_game_get_their_rate_from_the_size_of_updates():
    gan = TinyGAN()
    found = ml.tune.learning_rate(gan, ones(), between=(1e-5, 1.0), steps=30)
    for name, curve in found.items():
        # d = 3 and g = 2: SGD updates g by r d, and d by r (g - 1).
        ratio = {"generator": 3 / 2, "discriminator": 1 / 3}[name]
        assert curve.ratios[0] == pytest.approx(ratio * 1e-5, rel=1e-2)
        assert np.interp(curve.rate, curve.rates, curve.ratios) == pytest.approx(1e-2, rel=0.2)
    assert all(curve.source == "update ratio" for curve in found.values())
    assert "which 'generator' moves too" in found["discriminator"].reason
    before = {name: float(each.learning_rate) for name, each in gan.optimizers.items()}
    assert found.apply() == {}  # a sweep of one model cannot find the rates of a game
    assert before == {name: float(each.learning_rate) for name, each in gan.optimizers.items()}
    assert found["generator"].rival == "discriminator" and "(a hint)" in str(found)
    alone = ml.tune.learning_rate(TinyGAN(), ones(), "generator", steps=20, others="freeze")
    assert "game" not in alone["generator"].reason and list(alone.apply()) == ["generator"]


def reversed_at(weight):
    """A pair in which `a` follows the loss of `b` with a weight."""
    pair = Pair()
    pair.routing = {"a": {"a": 1, "b": weight}, "b": {"b": 1}}
    return pair.setup(ones())


def scheduled_weight():
    return keras.optimizers.schedules.PiecewiseConstantDecay([10], [-1.0, 1.0])


@pytest.mark.parametrize("weight", [lambda: -1, lambda: keras.Variable(-1.0), scheduled_weight])
def test_a_reversed_gradient_is_a_game(weight):
    assert games.players(reversed_at(weight())._mlsystem, ones()) == {"a": "b", "b": "a"}
    assert games.players(reversed_at(1)._mlsystem, ones()) == {}
    assert games.players(reversed_at(keras.Variable(0.0))._mlsystem, ones()) == {}  # not yet
    assert games.players(reversed_at(0)._mlsystem, ones()) == {"b": "a"}  # never follows it


def test_others_train_or_are_frozen():
    kept, frozen = (
        ml.tune.learning_rate(Pair(), ones(), "b", (1e-6, 1e-3), 12, others)["b"]
        for others in ("keep", "freeze")
    )
    assert kept.base[-1] < 0.1 * frozen.base[-1]  # `a` learns all that there is to learn
    np.testing.assert_allclose(frozen.base, frozen.base[0], rtol=1e-3)


class Phases(TinyGAN):
    phases = [("discriminator",)] * 2 + [("generator",)]


class Turns(TinyGAN):
    update_every = {"generator": 3}  # noqa: RUF012


@pytest.mark.parametrize("make", [Phases, Turns])
def test_each_rate_is_of_a_batch_that_updates_the_model(make):
    found = ml.tune.learning_rate(make(), ones(), between=(1e-4, 1e-2), steps=10)
    assert {len(curve.rates) for curve in found.values()} == {10}
    assert all((curve.ratios > 0).all() for curve in found.values())


class Breaking(ml.MLModel):
    """sqrt(1 - w): not a number once w has grown above 1, in a system or alone."""

    def __init__(self):
        super().__init__(optimizer=keras.optimizers.SGD(0.1))
        self.weight = self.add_weight(shape=(), initializer="zeros", name="weight")

    def forward(self, x):
        return x * self.weight

    def loss(self, x, y, outputs):
        outputs = outputs["breaking"] if isinstance(outputs, dict) else outputs
        return ops.mean(ops.sqrt(1 - outputs))


class Around(ml.MLSystem):
    def __init__(self, nonfinite):
        super().__init__()
        self.nonfinite, self.breaking = nonfinite, Breaking()

    def forward(self, x):
        return {"breaking": self.breaking(x)}


@pytest.mark.parametrize(
    "make", [Breaking, *(lambda n=n: Around(n) for n in ("skip", "raise", "keep"))]
)
def test_a_step_that_is_not_finite_ends_a_sweep(make):
    [curve] = ml.tune.learning_rate(make(), ones(), between=(1e-3, 1e3), steps=60).values()
    assert curve.end == "Its loss or gradient was not finite." and len(curve.rates) < 60
    assert curve.rate < curve.rates[-1]


def scheduled():
    return keras.optimizers.SGD(keras.optimizers.schedules.CosineDecay(0.1, 10))


def in_fours():
    bowl = Bowl()
    bowl.compile(keras.optimizers.SGD(0.01), steps_per_execution=4)
    return bowl


@pytest.mark.parametrize(
    "make, change, text",
    [
        (Pair, {"models": "c"}, "names 'c', which does not exist. Those that exist: 'a', 'b'."),
        (Pair, {"models": []}, "which names no model"),
        (Pair, {"between": (1.0, 1e-7)}, "the smaller one first"),
        (Pair, {"between": (0.0, 1.0)}, "two numbers above 0"),
        (Pair, {"between": 0.1}, "Give the lowest and the highest rate"),
        (Pair, {"steps": 3}, "got steps=3. Give a number of steps from 10"),
        (Pair, {"others": "stop"}, "got others='stop'"),
        (Pair, {"data": None}, "needs data"),
        (Pair, {"data": np.ones((0, 1), "float32")}, "is empty"),
        (Pair, {"data": (row for row in [ones()])}, "got a generator, which cannot be read again"),
        (in_fours, {}, "Compile with steps_per_execution=1 for the sweep"),
        (lambda: Bowl(scheduled()), {}, "The learning rate of 'bowl' follows a schedule, CosineD"),
    ],
)
def test_what_makes_no_sweep_is_refused_before_weights_change(make, change, text):
    system = make()
    with pytest.raises(ValueError, match=text.replace("(", "\\(")):
        ml.tune.learning_rate(**({"system": system, "data": ones()} | change))
    if system.built:
        assert [ops.convert_to_numpy(w) for w in system.trainable_weights] in ([1.0, 2.0], [1.0])


def test_a_frozen_model_and_a_model_of_keras_are_refused():
    system = Pair()
    system.a.trainable = False
    with pytest.raises(ValueError, match="names 'a', which is frozen"):
        ml.tune.learning_rate(system, ones(), "a")
    with pytest.raises(TypeError, match="Give an MLModel or an MLSystem"):
        ml.tune.learning_rate(keras.Sequential([]), ones())


def test_a_model_that_is_never_updated_is_an_error():
    system = Pair()
    system.update_end = {"b": 1}
    with pytest.raises(ValueError, match="measured only 0 updates of 'b'"):
        ml.tune.learning_rate(system, ones(), "b", steps=10)

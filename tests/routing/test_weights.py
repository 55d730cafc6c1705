"""Weights of losses that move: updates worked out by hand, and weights that are refused."""

import keras
import numpy as np
import pytest
from keras import ops
from toys import Pair, TinyGAN, number, ones

import mlsystem as ml

Schedule = keras.optimizers.schedules.LearningRateSchedule


class Ramp(Schedule):
    """start + step * (the number of batches before this one)."""

    def __init__(self, start, step):
        self.start, self.step = start, step

    def __call__(self, batches):
        return self.start + self.step * ops.cast(batches, "float32")

    def at(self, batch):
        return self.start + self.step * batch

    def get_config(self):
        return {"start": self.start, "step": self.step}


class Around(ml.MLSystem):
    def __init__(self, inner):
        super().__init__()
        self.inner = inner

    def forward(self, x):
        return {"inner": self.inner(x)}


def after(batches, a_of_a, a_of_b, b_of_b, start=(1.0, 2.0), rate=0.1):
    """The weights of a `Pair` whose losses are weighed by functions of the batch."""
    a, b = start
    for n in range(batches):
        own, other = 2 * (a - 3), 2 * (a * b - 5)
        slope_a = a_of_a(n) * own + a_of_b(n) * other * b
        a, b = a - rate * slope_a, b - rate * b_of_b(n) * other * a
    return [a, b]


def trained(system, pair, eagerly, batches=4, **compiled):
    system.compile(run_eagerly=eagerly, **compiled)
    system.fit(ones(4 * batches), batch_size=4, verbose=0)
    return [number(pair.a.weight), number(pair.b.weight)]


def approx(expected):
    return pytest.approx(expected, rel=1e-5)


both = pytest.mark.parametrize("eagerly", [False, True])
rise, fall = Ramp(0.0, 0.1), Ramp(0.05, -0.01)


@both
def test_a_schedule_in_routing_counts_the_batches_before(eagerly):
    pair = Pair()
    pair.routing = {"a": {"a": rise, "b": 0.01}, "b": {"b": fall}}
    expected = after(4, rise.at, lambda n: 0.01, fall.at)
    assert trained(pair, pair, eagerly) == approx(expected)


@both
def test_a_schedule_in_loss_weights_and_one_in_routing_multiply(eagerly):
    pair = Pair()
    pair.routing = {"a": {"a": rise, "b": -0.01}, "b": {"b": 0.5}}
    given = {"a": Ramp(1.0, -0.2), "b": fall}
    expected = after(
        4,
        lambda n: rise.at(n) * given["a"].at(n),
        lambda n: -0.01 * fall.at(n),
        lambda n: 0.5 * fall.at(n),
    )
    assert trained(pair, pair, eagerly, loss_weights=given) == approx(expected)


@both
def test_one_schedule_weighs_all_losses(eagerly):
    pair = Pair()
    expected = after(4, fall.at, fall.at, fall.at)
    assert trained(pair, pair, eagerly, loss_weights=fall) == approx(expected)


@both
def test_weights_of_nested_systems_multiply(eagerly):
    pair = Pair()
    pair.routing = {"a": {"a": rise, "b": 0.1}, "b": {"b": fall}}
    pair.compile(loss_weights={"b": Ramp(1.0, 0.5)})
    outer = Around(pair)
    outer.routing = {"inner": {"inner": Ramp(0.5, -0.1)}}

    def weigh(n, inner, of_b=False):
        return Ramp(0.5, -0.1).at(n) * 0.5 * inner * (Ramp(1.0, 0.5).at(n) if of_b else 1)

    expected = after(
        4,
        lambda n: weigh(n, rise.at(n)),
        lambda n: weigh(n, 0.1, True),
        lambda n: weigh(n, fall.at(n), True),
    )
    assert trained(outer, pair, eagerly, loss_weights={"inner": 0.5}) == approx(expected)


class Sets(keras.callbacks.Callback):
    """Assigns n / 10 to a variable before batch n."""

    def __init__(self, variable):
        super().__init__()
        self.variable = variable

    def on_train_batch_begin(self, batch, logs=None):
        self.variable.assign(batch / 10)


@both
@pytest.mark.parametrize("where", ["routing", "loss_weights", "nested"])
@pytest.mark.spread
def test_a_variable_counts_as_it_is_assigned(eagerly, where):
    weight, pair = keras.Variable(7.0), Pair()
    system, given = pair, {}
    if where == "loss_weights":
        given = {"loss_weights": {"a": weight}}
    else:
        pair.routing = {"a": {"a": weight, "b": 1.0}, "b": {"b": 1.0}}
    if where == "nested":
        system = Around(pair)
    system.compile(run_eagerly=eagerly, **given)
    system.fit(ones(16), batch_size=4, verbose=0, callbacks=[Sets(weight)])
    expected = after(4, lambda n: n / 10, lambda n: 1.0, lambda n: 1.0)
    assert [number(pair.a.weight), number(pair.b.weight)] == approx(expected)


def test_an_integer_variable_and_an_integer_schedule_weigh_too():
    class Whole(Schedule):
        def __call__(self, batches):
            return ops.cast(batches, "int32") + 1

    pair, two = Pair(), keras.Variable(2, dtype="int32", trainable=False)
    pair.routing = {"a": {"a": two, "b": 0.01}, "b": {"b": Whole()}}
    expected = after(2, lambda n: 2, lambda n: 0.01, lambda n: n + 1)
    assert trained(pair, pair, False, batches=2) == approx(expected)


def test_a_variable_in_a_schedule_is_read_at_each_batch():
    class Held(Schedule):
        def __init__(self, variable):
            self.variable = variable

        def __call__(self, batches):
            return self.variable * 1.0

    weight, pair = keras.Variable(7.0), Pair()
    pair.compile(loss_weights={"a": Held(weight)})
    pair.fit(ones(16), batch_size=4, verbose=0, callbacks=[Sets(weight)])
    expected = after(4, lambda n: n / 10, lambda n: 1.0, lambda n: 1.0)
    assert [number(pair.a.weight), number(pair.b.weight)] == approx(expected)


def test_a_schedule_goes_on_after_loading(tmp_path):
    pair = Pair()
    pair.compile(loss_weights=fall)
    pair.fit(ones(8), batch_size=4, verbose=0)
    pair.save_weights(tmp_path / "pair.weights.h5")
    again = Pair()
    again.compile(loss_weights=fall)
    again.setup(ones()).load_weights(tmp_path / "pair.weights.h5")
    again.fit(ones(8), batch_size=4, verbose=0)
    expected = after(4, fall.at, fall.at, fall.at)
    assert [number(again.a.weight), number(again.b.weight)] == approx(expected)


# What is refused ----------------------------------------------------------------------------


class Inverse(Schedule):
    """Infinite before the first batch."""

    def __call__(self, batches):
        return 1.0 / ops.cast(batches, "float32")


class Root(Schedule):
    """Not a number from the third batch on."""

    def __call__(self, batches):
        return ops.sqrt(1.5 - ops.cast(batches, "float32"))


class Vector(Schedule):
    def __call__(self, batches):
        return ops.ones((2,)) * ops.cast(batches, "float32")


class Broken(Schedule):
    def __call__(self, batches):
        raise KeyError("no such batch")


def refused(system, *words):
    before = np.concatenate([np.ravel(w) for w in system.get_weights()])
    with pytest.raises(ValueError) as error:
        system.fit(ones(8), batch_size=4, verbose=0)
    assert all(word in str(error.value) for word in words), str(error.value)
    assert np.array_equal(before, np.concatenate([np.ravel(w) for w in system.get_weights()]))


@pytest.mark.parametrize(
    "weight, words",
    [
        (Inverse(), ["Inverse", "inf after 0 batches"]),
        (Root(), ["Root", "nan after 2 batches"]),
        (Vector(), ["Vector", "shape (2,)", "scalar"]),
        (Broken(), ["Broken", "after 0 batches", "KeyError"]),
        (float("nan"), ["nan", "finite"]),
        (float("inf"), ["inf", "finite"]),
        (keras.Variable([1.0, 2.0]), ["variable of shape (2,)"]),
    ],
)
@pytest.mark.once
def test_a_weight_that_is_no_finite_number_is_refused(weight, words):
    gan = TinyGAN()
    gan.routing = {"generator": {"generator": weight}, "discriminator": {"discriminator": 1.0}}
    refused(gan, "'generator' weighs the loss 'generator'", *words)
    gan = TinyGAN()
    gan.compile(loss_weights={"discriminator": weight})
    refused(gan, f"'{gan.name}'", "the loss 'discriminator'", *words)
    pair = Pair()
    pair.routing = {"a": {"a": weight}, "b": {"b": 1.0}}
    refused(Around(pair), "'inner/a' weighs the loss 'inner/a'", *words)


@pytest.mark.once
def test_what_is_none_of_the_three_is_refused():
    for weight in ("0.5", [0.5], lambda batches: 0.5, None):
        gan = TinyGAN()
        gan.routing = {"generator": {"generator": weight}, "discriminator": {"discriminator": 1.0}}
        refused(gan, "generator", "a number, a Keras variable or a Keras schedule")

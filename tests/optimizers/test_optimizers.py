"""Each model's optimizer does what it does in plain Keras, where the model is trained alone."""

import inspect

import keras
import numpy as np
import pytest
from keras import layers, ops
from toys import Pair, Scale, Target, TinyGAN, number, ones

import mlsystem as ml

o = keras.optimizers
RNG = np.random.default_rng(0)
X = RNG.normal(size=(12, 3)).astype("float32")
Y = (X @ RNG.normal(size=(3, 2))).astype("float32")
STARTS = [[RNG.normal(size=shape).astype("float32") for shape in ((3, 2), (2,))] for _ in "ab"]

# Every optimizer of Keras, in two configurations that are trained side by side.
PLAIN = {
    "SGD": ({}, {"momentum": 0.9, "nesterov": True}),
    "RMSprop": ({}, {"momentum": 0.5, "centered": True}),
    "Adam": ({"beta_1": 0.5}, {"amsgrad": True}),
    "AdamW": ({"weight_decay": 0.1}, {"weight_decay": 0.01}),
    "Adadelta": ({}, {"rho": 0.5}),
    "Adagrad": ({}, {"initial_accumulator_value": 0.5}),
    "Adamax": ({}, {"beta_2": 0.9}),
    "Nadam": ({}, {"beta_1": 0.5}),
    "Ftrl": ({}, {"l1_regularization_strength": 0.01}),
    "Lion": ({}, {"beta_1": 0.5}),
    "Lamb": ({}, {"beta_2": 0.9}),
    "Adafactor": ({}, {"relative_step": False}),
    "Muon": ({}, {"nesterov": False}),
    "ScheduleFreeAdamW": ({}, {"warmup_steps": 3}),
}
KNOWN = {name: given for name, given in PLAIN.items() if hasattr(o, name)}  # by this Keras
decay, pieces = o.schedules.ExponentialDecay(0.1, 2, 0.5), o.schedules.PiecewiseConstantDecay
OPTIONS = {
    "schedule": (o.SGD(decay), o.Adam(pieces([2, 4], [0.1, 0.01, 0.2]))),
    "clipnorm": (o.SGD(0.1, clipnorm=0.1), o.Adam(0.1, clipnorm=0.5)),
    "global_clipnorm": (o.SGD(0.1, global_clipnorm=0.1), o.SGD(0.1, global_clipnorm=0.5)),
    "clipvalue": (o.SGD(0.1, clipvalue=0.05), o.SGD(0.1, clipvalue=0.2)),
    "weight_decay": (o.SGD(0.1, weight_decay=0.1), o.Adam(0.1, weight_decay=0.01)),
    "accumulation": (
        o.SGD(0.1, gradient_accumulation_steps=3),
        o.Adam(0.1, gradient_accumulation_steps=2, clipnorm=1.0),
    ),
    "average": (
        o.SGD(0.1, use_ema=True, ema_momentum=0.5, ema_overwrite_frequency=3),
        o.Adam(0.1, use_ema=True, ema_momentum=0.5),  # which overwrites when training ends
    ),
    "scaled": (o.SGD(0.1, loss_scale_factor=8.0), o.Adam(0.1, loss_scale_factor=3.0)),
    "scaling": (
        o.LossScaleOptimizer(o.SGD(0.1), initial_scale=8.0, dynamic_growth_steps=2),
        o.LossScaleOptimizer(o.Adam(0.1, use_ema=True)),
    ),
}
if hasattr(o, "MultiOptimizer"):
    OPTIONS["several"] = [
        o.MultiOptimizer(o.OptimizerMap(o.SGD(rate), {".*kernel": o.Adam(rate)}))
        for rate in (0.05, 0.1)
    ]
MADE = {
    name: [getattr(o, name)(0.05 * (i + 1), **given) for i, given in enumerate(two)]
    for name, two in KNOWN.items()
} | OPTIONS


def again(optimizer):
    return type(optimizer).from_config(optimizer.get_config())


def train(model):
    model.fit(X, Y, batch_size=3, epochs=2, shuffle=False, verbose=0)


class Two(ml.MLSystem):
    """Two models, each with its own loss and optimizer."""

    routing = "own"

    def __init__(self, optimizers):
        super().__init__()
        self.nets = [
            ml.MLModel(layers.Dense(2), loss="mse", optimizer=again(given)) for given in optimizers
        ]

    def forward(self, x):
        return {f"nets/{i}": net(x) for i, net in enumerate(self.nets)}


def two(optimizers, **given):
    """A system trained with these optimizers."""
    system = Two(optimizers)
    system.compile(**given)
    for net, start in zip(system.nets, STARTS, strict=True):
        net(X)
        net.set_weights(start)
    train(system)
    return system


def alone(optimizer, start):
    """A model trained by plain Keras."""
    model = keras.Sequential([keras.Input((3,)), layers.Dense(2)])
    model.set_weights(start)
    model.compile(again(optimizer), "mse")
    # On TensorFlow, Keras builds it inside the step, where ScheduleFreeAdamW does not start at
    # the weights. (Seen in Keras 3.15.1.)
    model.optimizer.build(model.trainable_variables)
    train(model)
    return model


def agree(system, optimizers):
    for i, net in enumerate(system.nets):
        expected = alone(optimizers[i], STARTS[i])
        for one, other in zip(net.get_weights(), expected.get_weights(), strict=True):
            np.testing.assert_allclose(one, other, rtol=1e-6, atol=1e-6)
        found = system.optimizers[f"nets/{i}"]
        assert number(found.iterations) == number(expected.optimizer.iterations)


def test_every_optimizer_of_keras_is_here():
    wrappers = {"Optimizer", "LossScaleOptimizer", "MultiOptimizer", "OptimizerMap"}
    found = {name for name, value in vars(o).items() if inspect.isclass(value)}
    assert found - wrappers == set(KNOWN)


@pytest.mark.parametrize("optimizers", MADE.values(), ids=MADE)
@pytest.mark.spread
def test_models_of_a_system_learn_as_each_does_alone(optimizers):
    agree(two(optimizers), optimizers)


@pytest.mark.parametrize("name", ["accumulation", "average", "scaling"])
@pytest.mark.spread
def test_models_learn_as_each_does_alone_when_run_eagerly(name):
    agree(two(MADE[name], run_eagerly=True), MADE[name])


def test_the_scale_of_a_loss_grows():
    """Every second of eight updates doubles it."""
    system = two(MADE["scaling"])
    assert number(system.optimizers["nets/0"].dynamic_scale) == 8.0 * 2**4


# Half precision -----------------------------------------------------------------------------


class Slope(Scale):
    """loss = mean(weight * x * y): the gradient is mean(x y)."""

    def loss(self, x, y, outputs):
        return ops.mean(ops.cast(outputs[self.key], "float32") * y[self.key])


class Halves(ml.MLSystem):
    """Three models, each of its own precision."""

    routing = "own"

    def __init__(self):
        super().__init__()
        self.a = Slope(1.0, dtype="mixed_float16")
        self.b = Slope(1.0, dtype="mixed_float16")
        self.c = Slope(1.0, dtype="mixed_bfloat16")
        self.d = Slope(1.0)

    def forward(self, x):
        return {name: model(x) for name, model in self._mlsystem.models().items()}


def slopes(**given):
    """A batch of one sample for each slope; 1 where no other is given."""
    return {name: np.array(given.get(name, [1.0] * 4), "float32")[:, None] for name in "abcd"}


@pytest.mark.parametrize("eager", [False, True])
def test_a_gradient_that_is_not_finite_skips_the_update_of_its_model_alone(eager):
    system = Halves()
    system.compile(run_eagerly=eager)
    y = slopes(a=[1, np.inf, 1, np.nan], b=[1, 1, np.inf, 1])
    with pytest.warns(UserWarning, match="The gradient of '[ab]' is not finite"):
        logs = system.fit(ones(4), y, batch_size=1, shuffle=False, verbose=0).history
    assert (logs["a_skipped"], logs["b_skipped"]) == ([2], [1])
    found = {name: number(system.optimizers[name].iterations) for name in "abcd"}
    assert found == {"a": 2, "b": 3, "c": 4, "d": 4}
    for name in "abcd":
        assert number(getattr(system, name).weight) == pytest.approx(1 - 0.1 * found[name])
    scales = {name: number(system.optimizers[name].dynamic_scale) for name in "ab"}
    assert scales == {"a": 2.0**13, "b": 2.0**14}
    assert number(system.optimizer.iterations) == 4


def test_models_of_a_system_have_policies_of_their_own():
    system = Halves().setup((ones(), slopes()))
    scaled = {n for n, opt in system.optimizers.items() if isinstance(opt, o.LossScaleOptimizer)}
    assert scaled == {"a", "b"}
    assert {w.dtype for w in system.weights} == {"float32"}
    kinds = {name: keras.backend.standardize_dtype(z.dtype) for name, z in system(ones()).items()}
    assert kinds == {"a": "float16", "b": "float16", "c": "bfloat16", "d": "float32"}


def test_a_network_brings_its_policy_along():
    model = ml.MLModel(layers.Dense(1, dtype="mixed_float16"), loss="mse", optimizer="sgd")
    model.fit(X, Y[:, :1], verbose=0)
    assert isinstance(model.optimizer, o.LossScaleOptimizer)


def test_losses_are_not_scaled_where_compile_says_so():
    system = Halves()
    system.compile(auto_scale_loss=False)
    system.setup((ones(), slopes()))
    kinds = [isinstance(found, o.LossScaleOptimizer) for found in system.optimizers.values()]
    assert kinds == [False] * 4


# One for all --------------------------------------------------------------------------------


def of_pair(**optimizers):
    pair = Pair()
    pair.compile(optimizer=optimizers)
    return pair.setup(ones())


def test_the_optimizers_are_those_given():
    a, b = o.SGD(0.1), o.Adam(0.1)
    pair = of_pair(a=a, b=b)
    assert pair.optimizers["a"] is a and pair.optimizers["b"] is b
    assert pair.optimizer.by_model == {"a": a, "b": b}


def rates(system):
    return {name: number(inner.learning_rate) for name, inner in system.optimizers.items()}


def test_learning_rates_are_set_in_proportion_through_loss_scaling():
    pair = of_pair(a=o.LossScaleOptimizer(o.SGD(0.1)), b=o.Adam(0.3))
    assert number(pair.optimizer.learning_rate) == pytest.approx(0.1)
    pair.optimizer.learning_rate = 0.01
    assert rates(pair) == pytest.approx({"a": 0.01, "b": 0.03})


def test_a_schedule_beside_a_learning_rate_that_is_set():
    pair = of_pair(a=o.SGD(0.1), b=o.LossScaleOptimizer(o.SGD(decay)))
    with pytest.raises(TypeError, match=r"'b'.*schedule.*optimizers\['a'\]"):
        pair.optimizer.learning_rate = 0.01
    assert rates(pair) == pytest.approx({"a": 0.1, "b": 0.1})
    pair.optimizers["a"].learning_rate = 0.01
    with pytest.raises(TypeError, match="'b'"):
        pair.fit(
            ones(), verbose=0, callbacks=[keras.callbacks.LearningRateScheduler(lambda i, r: r)]
        )


def test_a_schedule_for_all_is_given_to_each():
    pair = of_pair(a=o.SGD(0.1), b=o.SGD(0.2))
    with pytest.raises(TypeError, match=r"ExponentialDecay.*number.*optimizers\['a'\]"):
        pair.optimizer.learning_rate = decay
    pair.optimizers["b"].learning_rate = decay
    pair.fit(ones(8), batch_size=2, verbose=0)
    assert rates(pair) == pytest.approx({"a": 0.1, "b": 0.1 * 0.5**2})


@pytest.mark.parametrize("eager", [False, True])
def test_batches_are_counted_once_and_updates_by_each_optimizer(eager):
    gan = TinyGAN()
    gan.phases = ["discriminator", "discriminator", "generator"]
    gan.update_every = {"generator": 2}
    given = {"generator": "sgd", "discriminator": o.SGD(0.01, gradient_accumulation_steps=3)}
    gan.compile(optimizer=given, run_eagerly=eager)
    gan.fit(ones(7), batch_size=1, verbose=0)
    counts = {name: number(inner.iterations) for name, inner in gan.optimizers.items()}
    assert counts == {"generator": 3, "discriminator": 14 // 3}
    assert number(gan.optimizer.iterations) == 7


# What is no optimizer -----------------------------------------------------------------------

WRONG = {
    "a number": ({"a": 0.1, "b": "sgd"}, ["'a'", "0.1", "Keras optimizer"]),
    "another class": ({"a": "sgd", "b": dict}, ["'b'", "dict", "Keras optimizer"]),
    "a function": ({"a": lambda: o.SGD(0.1), "b": "sgd"}, ["'a'", "function", "Keras optimizer"]),
    "a name": ({"a": "adamant", "b": "sgd"}, ["'a'", "adamant"]),
    "a loss": ({"a": "sgd", "b": keras.losses.MeanSquaredError()}, ["'b'", "MeanSquaredError"]),
    "a system's": ({"a": "sgd", "b": {"c": "sgd"}}, ["'b'", "{'c': 'sgd'}"]),
    "no argument": ({"a": keras.optimizers.Optimizer, "b": "sgd"}, ["'a'", "learning_rate"]),
}
COMPILED = {"a list": ([o.SGD(), o.SGD()], ["'a'", "list", "dict"])}


def wrong(pair, parts):
    with pytest.raises(ValueError) as caught:
        pair.fit(ones(), verbose=0)
    for part in parts:
        assert part in str(caught.value)
    assert number(pair.a.weight) == 1.0


@pytest.mark.parametrize("given, parts", (WRONG | COMPILED).values(), ids=WRONG | COMPILED)
@pytest.mark.once
def test_what_is_no_optimizer_in_compile(given, parts):
    pair = Pair()
    pair.compile(optimizer=given)
    wrong(pair, parts)


@pytest.mark.parametrize("given, parts", WRONG.values(), ids=WRONG)
@pytest.mark.once
def test_what_is_no_optimizer_in_configure_optimizers(given, parts):
    pair = Pair()
    pair.configure_optimizers = lambda: given
    wrong(pair, parts)


@pytest.mark.parametrize("given", [0.1, "adamant"])
@pytest.mark.once
def test_what_is_no_optimizer_of_a_model(given):
    pair = Pair()
    pair.b = Target(optimizer=given)
    wrong(pair, ["'b'", str(given)])


@pytest.mark.once
def test_an_optimizer_that_is_shared_is_copied_with_all_that_it_was_given():
    shared = o.LossScaleOptimizer(o.AdamW(0.2, weight_decay=0.1, clipnorm=1.0), initial_scale=4.0)
    pair = of_pair(a=shared, b=shared)
    assert pair.optimizers["a"] is shared
    assert pair.optimizers["b"] is not shared
    configs = [inner.get_config() for inner in pair.optimizers.values()]
    assert configs[0] == configs[1]
    assert shared.inner_optimizer is not pair.optimizers["b"].inner_optimizer


@pytest.mark.once
def test_an_optimizer_wrapped_for_another_model_is_shared_too():
    shared = o.SGD(0.2)
    pair = of_pair(a=shared, b=o.LossScaleOptimizer(shared))
    assert pair.optimizers["b"].inner_optimizer is not shared
    pair.fit(ones(), verbose=0)
    assert [number(inner.iterations) for inner in pair.optimizers.values()] == [1, 1]


class Wobbly(o.SGD):
    def __init__(self, wobble, **kwargs):
        super().__init__(**kwargs)


@pytest.mark.once
def test_an_optimizer_that_is_shared_and_cannot_be_copied():
    pair = Pair()
    pair.compile(optimizer=Wobbly(1.0))
    wrong(pair, ["Wobbly", "get_config", "wobble"])


def test_an_optimizer_of_none_is_the_one_that_the_model_has():
    pair = of_pair(a=None, b=o.SGD(0.2))
    assert rates(pair) == pytest.approx({"a": 0.1, "b": 0.2})

"""The advice, on systems made to fail in each way, and on healthy ones."""

import warnings

import keras
import numpy as np
import pytest
from keras import layers, ops
from toys import Pair, Target, TinyGAN, ones

import mlsystem as ml

softplus = ops.softplus


class Maker(ml.MLModel):
    """A generator with the loss that vanishes when the discriminator wins: log(1 - D(fake))."""

    def loss(self, x, y, outputs):
        return -ops.mean(softplus(outputs["fake"]))


class Judge(ml.MLModel):
    def loss(self, x, y, outputs):
        return ops.mean(softplus(-outputs["real"])) + ops.mean(softplus(outputs["fake"]))


class GAN(ml.MLSystem):
    """Real numbers near 2, fakes near 0; by default the discriminator learns 1000 times faster."""

    routing = "own"

    def __init__(self, rates=(1e-3, 1.0)):
        super().__init__()
        self.maker = Maker(layers.Dense(1), optimizer=keras.optimizers.Adam(rates[0]))
        unsure = layers.Dense(1, kernel_initializer="zeros")  # so that its first loss is 2 log(2)
        self.judge = Judge(unsure, optimizer=keras.optimizers.Adam(rates[1]))
        self.seed = keras.random.SeedGenerator(0)

    def forward(self, x, training=None):
        z = 0.1 * keras.random.normal(ops.shape(x), seed=self.seed)
        return {"real": self.judge(x), "fake": self.judge(self.maker(z))}


def real(n=64):
    return np.random.default_rng(0).normal(2, 0.1, size=(n, 1)).astype("float32")


def advised(system, x=None, y=None, epochs=1, **given):
    """The sentences of a training run. Each is a warning too."""
    advice = ml.callbacks.Advice(**{"every": 5, **given})
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always", UserWarning)
        x = ones(64) if x is None else x
        system.fit(x, y, batch_size=4, epochs=epochs, verbose=0, callbacks=[advice])
    assert [str(warning.message) for warning in caught] == advice.sentences()
    return advice.sentences()


def only(rule):
    """The arguments that leave one rule on."""
    rules = ("winning_loss", "sample_fall", "dead_routes", "update_ratios", "stalled_epochs")
    return {name: None for name in rules if name != rule}


# A model that wins --------------------------------------------------------------------------


@pytest.mark.once
def test_a_discriminator_that_wins_and_the_remedy():
    alone = only("winning_loss")
    [sentence] = advised(GAN(), real(), epochs=8, **alone)
    assert sentence.startswith("'judge' wins") and 'losses["judge"] > 0.5}' in sentence
    assert advised(GAN(), real(), epochs=8, **alone | {"winning_loss": None}) == []
    balanced = GAN()
    balanced.update_when = {"judge": lambda losses: losses["judge"] > 0.5}
    assert advised(balanced, real(), epochs=8, **alone) == []


@pytest.mark.once
def test_two_models_that_converge_have_no_winner():
    # Both losses go to zero, and so do the gradients.
    assert advised(Pair(), epochs=8, **only("winning_loss")) == []


# Samples that collapse ----------------------------------------------------------------------


class Still(ml.MLSystem):
    """What `maker` makes, near `center`, gets a spread of `goal`; 0 makes all samples the same."""

    def __init__(self, goal=0.0, center=10.0):
        super().__init__()
        bias = keras.initializers.Constant(center)
        net = layers.Dense(2, kernel_initializer="ones", bias_initializer=bias)
        self.maker = ml.MLModel(net, optimizer=keras.optimizers.Adam(0.1))
        self.goal = goal

    def forward(self, x, training=None):
        return self.maker(x)

    def compute_losses(self, x, y, outputs):
        return {"spread": (ops.mean(ops.std(outputs, axis=0)) - self.goal) ** 2}


@pytest.mark.once
def test_samples_that_collapse():
    noise = np.random.default_rng(0).normal(size=(64, 3)).astype("float32")

    def run(goal, center=10.0, **given):
        system = Still(goal, center)
        samples = {"samples": lambda: system.maker(noise)} | only("sample_fall") | given
        return advised(system, noise, epochs=6, **samples)

    [sentence] = run(0.0)
    assert sentence.startswith("The samples have collapsed")
    assert run(1.0) == run(0.0, sample_fall=None) == []
    assert run(0.0, center=0.0) == []  # smaller, and as different for their size as before


# Routes without a gradient ------------------------------------------------------------------


class Cut(Pair):
    """`a` follows the loss of `b`, which does not reach it."""

    def forward(self, x):
        a = self.a(x)
        return {"a": a, "b": self.b(ops.stop_gradient(a))}


@pytest.mark.once
def test_a_route_that_the_routing_names_and_no_gradient_takes():
    alone = only("dead_routes")
    system = Cut()
    system.routing = {"a": {"a": 1.0, "b": 1.0}, "b": {"b": 1.0}}
    [sentence] = advised(system, **alone)
    assert "'a' gets no gradient from the loss 'b'" in sentence
    assert advised(Cut(), **alone) == []  # under "sum", losses need not reach each model
    assert advised(Pair(), **alone) == []


class Dying(Target):
    """A ReLU whose weight is driven below zero by a step that is too large."""

    def __init__(self, **kwargs):
        super().__init__(1.9, optimizer=keras.optimizers.SGD(1.5), **kwargs)

    def forward(self, x):
        return ops.relu(x * self.weight)

    def loss(self, x, y, outputs):
        return (ops.mean(outputs) - 1) ** 2


@pytest.mark.once
def test_a_route_that_dies():
    model = Dying(name="unit")
    [sentence] = advised(model, every=1, epochs=2, **only("dead_routes"))
    assert "'unit' gets no gradient from the loss 'unit'" in sentence and "before" in sentence
    off = only("dead_routes") | {"dead_routes": False}
    assert advised(Dying(), every=1, epochs=2, **off) == []


class Hinge(Target):
    def loss(self, x, y, outputs):
        return ops.mean(ops.relu(1.5 - outputs))


@pytest.mark.once
def test_a_loss_that_is_solved_needs_no_gradient():
    model = Hinge(1.0)
    assert advised(model, every=1, **only("dead_routes")) == []
    assert advised(model, every=1, **only("dead_routes")) == []  # zero from the start


class Inner(ml.MLSystem):
    """A nested system with a dead member: `a` is cut from both losses."""

    def __init__(self):
        super().__init__()
        self.a, self.b = Target(1.0, 3.0), Target(2.0, 5.0)

    def forward(self, x):
        a = ops.stop_gradient(self.a(x))
        return {"a": a, "b": self.b(a)}


@pytest.mark.once
@pytest.mark.filterwarnings("ignore:None of the losses that 'model/a' follows")
@pytest.mark.parametrize("routing", ["sum", "own"])
def test_a_dead_member_of_a_nested_system_is_one_sentence(routing):
    system = Alone(Inner())
    system.routing = routing
    advice = ml.callbacks.Advice(every=1, warn=False, **only("dead_routes"))
    system.fit(ones(16), batch_size=4, verbose=0, callbacks=[advice])
    [sentence] = advice.sentences()
    assert sentence.startswith("'model/a' gets no gradient from the losses 'model/a' and 'model/b'")
    assert "out of the routing" not in sentence


# Updates too small or too large -------------------------------------------------------------


@pytest.mark.once
@pytest.mark.parametrize("rate, size", [(1e-9, "small"), (1e-3, None), (2.0, "large")])
def test_updates_of_every_size(rate, size):
    model = ml.MLModel(layers.Dense(3), loss="mse", name="line")
    model.compile(optimizer=keras.optimizers.Adam(rate))
    x = np.random.default_rng(0).normal(size=(64, 3)).astype("float32")
    found = advised(model, x, x, epochs=3, **only("update_ratios"))
    assert [f"far too {size}" in sentence for sentence in found] == ([True] if size else [])


@pytest.mark.once
def test_updates_of_a_model_that_starts_at_zero():
    net = layers.Dense(10, kernel_initializer="zeros")
    model = ml.MLModel(net, loss="mse", optimizer=keras.optimizers.Adam(1e-3))
    x = np.random.default_rng(0).normal(size=(64, 10)).astype("float32")
    assert advised(model, x, x, every=1, epochs=3, **only("update_ratios")) == []


@pytest.mark.once
def test_a_model_of_few_numbers_has_no_usual_size_of_updates():
    # Each step takes the weight to -0.9 of itself, around zero, where a log variance may stay.
    small = Target(1.0, goal=0.0, optimizer=keras.optimizers.SGD(0.95))
    assert advised(Alone(small), every=1, **only("update_ratios")) == []


# A loss that does not move ------------------------------------------------------------------


@pytest.mark.once
def test_a_loss_that_does_not_move():
    alone = only("stalled_epochs") | {"stalled_epochs": 3}
    stuck = Target(1.0, goal=3.0, optimizer=keras.optimizers.SGD(1e-9), name="stuck")
    [sentence] = advised(Alone(stuck), epochs=4, **alone)
    assert "The loss 'model' has not moved for 3 epochs" in sentence
    moving = Target(1.0, goal=3.0, optimizer=keras.optimizers.SGD(0.01))
    assert advised(Alone(moving), epochs=4, **alone) == []


class Alone(ml.MLSystem):
    def __init__(self, model):
        super().__init__()
        self.model = model

    def forward(self, x):
        return {"model": self.model(x)}


@pytest.mark.once
def test_losses_of_a_game_may_stay_level():
    level = GAN(rates=(1e-9, 1e-9))
    assert advised(level, real(), epochs=4, **only("stalled_epochs"), stalled_epochs=3) == []


# A run that continues an earlier one --------------------------------------------------------


@pytest.mark.once
def test_a_run_that_continues_is_not_compared_with_its_start(tmp_path):
    def fit(system, epochs, **given):
        advice = ml.callbacks.Advice(every=1, warn=False, stalled_epochs=2)
        callbacks = [advice, ml.callbacks.Checkpoint(tmp_path)] if given else [advice]
        system.fit(ones(16), ones(16), 4, epochs, 0, callbacks=callbacks, **given)
        return advice.sentences()

    def still():  # neither its loss nor its weights move
        return ml.MLModel(
            layers.Dense(10), loss=_level, name="flat", optimizer=keras.optimizers.SGD(1e-9)
        )

    first = still()
    kinds = [text.split(":")[0].split("'")[0] for text in fit(first, 3)]
    assert kinds == ["The updates of ", "The loss "]
    assert fit(first, 3) == []
    assert len(fit(still(), 1, resume=tmp_path)) == 1  # one epoch: the updates alone
    assert fit(still(), 4, resume=tmp_path) == []


def _level(y, outputs):
    return 1 + ops.mean(outputs**2) * 1e-3


# The callback -------------------------------------------------------------------------------


class Rich(ml.MLSystem):
    """Batch norm, dropout, noise and an average: what a measurement could change."""

    def __init__(self):
        super().__init__()
        self.encoder = ml.MLModel(keras.Sequential([layers.Dense(4), layers.BatchNormalization()]))
        self.head = ml.MLModel(keras.Sequential([layers.Dropout(0.5, seed=1), layers.Dense(3)]))
        self.target = ml.EMA(self.encoder, 0.9)
        self.seed = keras.random.SeedGenerator(3)

    def forward(self, x, training=None):
        encoded = self.encoder(x + 0.1 * keras.random.normal(ops.shape(x), seed=self.seed))
        head = self.head(encoded, training=training)
        return {"x": x, "encoded": encoded, "target": self.target(x), "head": head}

    def compute_losses(self, x, y, outputs):
        near = ops.mean((outputs["encoded"] - outputs["target"] - 1) ** 2)
        return {"near": near, "copy": ops.mean((outputs["head"] - outputs["x"]) ** 2)}

    def samples(self):
        noise = keras.random.normal((8, 3), seed=self.seed)  # moves the generator
        return self.head(self.encoder(noise), training=True)


def test_advice_changes_no_bit_and_a_healthy_system_gets_none():
    def run(advised):
        keras.utils.clear_session(free_memory=False)
        keras.utils.set_random_seed(0)
        system = Rich()
        system.compile(optimizer=keras.optimizers.Adam(1e-2))
        advice = ml.callbacks.Advice(every=2, samples=system.samples)
        x = np.random.default_rng(0).normal(size=(22, 3)).astype("float32")
        given = {"batch_size": 4, "epochs": 4, "verbose": 0}
        history = system.fit(x, callbacks=[advice] if advised else [], **given).history
        state = [ops.convert_to_numpy(v) for v in system._mlsystem.state_variables()]
        assert advice.sentences() == []
        return state, history

    (plain, logs), (looked, more) = run(False), run(True)
    assert logs == more and len(plain) == len(looked)
    assert all(map(np.array_equal, plain, looked))


@pytest.mark.once
def test_each_advice_is_given_once_a_run_and_warnings_can_be_left_out():
    model = Dying()
    advice = ml.callbacks.Advice(every=1, warn=False, update_ratios=None)
    model.fit(ones(32), batch_size=4, epochs=2, verbose=0, callbacks=[advice])
    assert len(advice.sentences()) == 1
    model.fit(ones(4), verbose=0, callbacks=[advice])
    assert advice.sentences() == []  # of a new run, with one measurement


@pytest.mark.once
def test_only_every_so_many_batches_are_measured():
    advice = ml.callbacks.Advice(every=5, warn=False)
    TinyGAN().fit(ones(48), batch_size=4, verbose=0, callbacks=[advice])
    assert {len(values) for values in advice._run.norms.values()} == {3}  # of twelve batches


@pytest.mark.once
@pytest.mark.parametrize(
    "wrong",
    [
        {"every": 0},
        {"samples": "generator"},
        {"winning_loss": -1},
        {"winning_loss": True},
        {"gradient_fall": "50"},
        {"gradient_fall": None},
        {"gradient_fall": False},
        {"sample_fall": 0},
        {"sample_fall": 90},
        {"update_ratios": 0.1},
        {"update_ratios": ("a", "b")},
        {"update_ratios": ()},
        {"update_ratios": (1e-1, 1e-5)},
        {"stalled_epochs": 1},
        {"stalled_epochs": 0},
        {"looks": 0},
    ],
)
def test_what_advice_refuses(wrong):
    with pytest.raises(ValueError, match=f"Advice got {next(iter(wrong))}="):
        ml.callbacks.Advice(**wrong)


@pytest.mark.once
def test_the_least_that_advice_takes():
    ml.callbacks.Advice(looks=1, stalled_epochs=2)
    ml.callbacks.Advice(**dict.fromkeys(only(""), False))
    with pytest.raises(ValueError, match="looks=0; give a whole number from 1"):
        ml.callbacks.Advice(looks=0)


@pytest.mark.once
def test_advice_needs_a_whole_fit_and_several_samples():
    with pytest.raises(ValueError, match="without For"):
        inner = ml.callbacks.For("generator", ml.callbacks.Advice())
        TinyGAN().fit(ones(), verbose=0, callbacks=[inner])
    with pytest.raises(ValueError, match=r"shape \(1, 3\)"):
        advice = ml.callbacks.Advice(samples=lambda: np.zeros((1, 3)))
        TinyGAN().fit(ones(), verbose=0, callbacks=[advice])

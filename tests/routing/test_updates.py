"""When a model is updated: `update_every`, `update_start`, `update_end`, `update_when`."""

import keras
import numpy as np
import pytest
from keras import ops
from toys import Critics, Pair, TinyGAN, approx, number, ones

import mlsystem as ml
from mlsystem.routing.update_schedule import Turn, due, variants

NAMES = ("generator", "discriminator")


def worked(batches, is_due=lambda name, seen, losses: True):
    """The weights of `TinyGAN` after each batch of ones, worked by hand."""
    g, d, after = 2.0, 3.0, []
    for seen in range(batches):
        losses = {"generator": -d * g, "discriminator": d * g - d, "discriminator_fake": d * g}
        updated = [is_due(name, seen, losses) for name in NAMES]
        g, d = g + 0.1 * d * updated[0], d - 0.01 * (g - 1) * updated[1]
        after.append((g, d))
    return after


def trained(batches=8, eager=False, epochs=1, **given):
    """The weights of `TinyGAN` after each batch, the logs of its epochs and the system itself."""
    gan, after = TinyGAN(), []
    for name, value in given.items():
        setattr(gan, name, value)
    gan.compile(run_eagerly=eager)

    def note(batch, logs):
        after.append((number(gan.generator.weight), number(gan.discriminator.weight)))

    each = keras.callbacks.LambdaCallback(on_train_batch_end=note)
    x = np.ones((batches, 1), "float32")
    fit = gan.fit(x, batch_size=1, epochs=epochs, verbose=0, callbacks=[each])
    return np.array(after), fit.history, gan


@pytest.mark.parametrize("eager", [False, True], ids=["compiled", "eager"])
@pytest.mark.parametrize(
    "given, is_due",
    [
        ({"update_start": {"generator": 3}}, lambda n, seen, _: n != "generator" or seen >= 3),
        ({"update_end": {"discriminator": 5}}, lambda n, seen, _: n == "generator" or seen < 5),
        (
            {
                "update_every": {"generator": 2},
                "update_start": {"generator": 2},
                "update_end": {"generator": 7},
            },
            lambda n, seen, _: n != "generator" or seen in (3, 5),
        ),
        (
            {"update_when": {"discriminator": lambda losses: losses["discriminator"] < 5.5}},
            lambda n, _, losses: n == "generator" or losses["discriminator"] < 5.5,
        ),
        (
            {"update_when": {"generator": lambda losses: losses["discriminator_fake"] < 8}},
            lambda n, _, losses: n != "generator" or losses["discriminator_fake"] < 8,
        ),
    ],
    ids=["start", "end", "all three", "when", "when a term"],
)
@pytest.mark.spread
def test_models_are_updated_on_their_batches(given, is_due, eager):
    after, _, gan = trained(eager=eager, **given)
    expected = np.array(worked(8, is_due))
    assert after == approx(expected)
    steps = np.diff(np.array([(2.0, 3.0), *expected]), axis=0) != 0  # some of each
    for i, name in enumerate(NAMES):
        assert number(gan.optimizers[name].iterations) == steps[:, i].sum()
    assert not steps.all() and number(gan.optimizer.iterations) == 8


def test_turns_go_on_through_epochs():
    after, _, _ = trained(batches=2, epochs=3, update_start={"generator": 3})
    assert after == approx(np.array(worked(6, lambda n, seen, _: n != "generator" or seen >= 3)))


def test_the_logs_are_those_of_the_batches_on_which_a_model_was_updated():
    def few(losses):
        return losses["discriminator"] < 5.5

    _, history, _ = trained(update_when={"discriminator": few})
    before = [(2.0, 3.0), *worked(7, lambda n, _, losses: n == "generator" or few(losses))]
    losses = np.array([d * g - d for g, d in before])
    counted = losses[losses < 5.5]
    assert 0 < len(counted) < 8
    assert history["discriminator_loss"][0] == approx(counted.mean())
    assert history["discriminator_updated"][0] == approx(len(counted) / 8)
    assert history["generator_loss"][0] == approx(np.mean([-d * g for g, d in before]))


def test_a_loss_that_never_counts_is_not_logged():
    _, history, _ = trained(update_when={"discriminator": lambda losses: False})
    assert "discriminator_loss" not in history and history["discriminator_updated"] == [0.0]


def test_each_phase_asks_again():
    phases = [("discriminator",), ("discriminator",), ("generator",)]
    when = {"discriminator": lambda losses: losses["discriminator"] > 2.995}
    _, history, gan = trained(batches=1, phases=phases, update_when=when)
    # 3 - 0.01 = 2.99, of which the loss is 2.99: the second phase leaves it
    assert number(gan.discriminator.weight) == approx(2.99)
    assert history["discriminator_updated"] == [0.5]


def test_copies_follow_where_their_source_was_updated():
    class Averaged(TinyGAN):
        def __init__(self):
            super().__init__()
            self.copy = ml.EMA(self.discriminator, momentum=0.5)

    gan = Averaged()
    gan.update_when = {"discriminator": lambda losses: losses["discriminator"] < 3.5}
    gan.fit(np.ones((4, 1), "float32"), batch_size=1, verbose=0)
    # 3 - 0.01 after the first batch; then its loss is 2.99 * 1.3 = 3.887
    assert number(gan.copy.averages[0]) == approx(2.995) and number(gan.copy.updates) == 1


def test_a_condition_of_a_list_is_one_of_each_model():
    critics = Critics()
    critics.update_when = {"critics": lambda losses: False}
    before = [number(critic.weight) for critic in critics.critics]
    logs = critics.fit(ones(), verbose=0).history
    assert [number(critic.weight) for critic in critics.critics] == before
    assert logs["critics/0_updated"] == logs["critics/1_updated"] == [0.0]


def test_a_loss_of_ones_own_is_not_asked_about():
    class Own(TinyGAN):
        def train_step(self, data):
            self.minimize(lambda: ops.sum(self.generator.weight * 3.0), "generator", "own")
            return self.get_metrics_result()

    gan = Own()
    gan.update_when = {"generator": lambda losses: losses["generator"] > 1e9}
    gan.fit(ones(), verbose=0)
    assert number(gan.generator.weight) == approx(2.0 - 0.3)


@pytest.mark.parametrize(
    "given, words",
    [
        ({"update_every": {"generator": 0}}, ["update_every", "0", "'generator'", "from 1"]),
        ({"update_start": {"generator": -1}}, ["update_start", "-1", "'generator'"]),
        ({"update_end": {"generator": 2.5}}, ["update_end", "2.5", "'generator'"]),
        ({"update_start": {"painter": 1}}, ["update_start", "'painter'", "'generator'"]),
        ({"update_start": 5}, ["update_start", "5", "{model:"]),
        ({"update_every": 0}, ["update_every", "0", "{model:"]),
        (
            {"update_start": {"generator": 4}, "update_end": {"generator": 4}},
            ["'generator'", "never be updated", "4"],
        ),
        (
            {
                "update_start": {"generator": 5},
                "update_every": {"generator": 4},
                "update_end": {"generator": 7},
            },
            ["'generator'", "never be updated", "7", "every 4"],
        ),
        (
            {"update_when": {"generator": lambda losses: losses["generator"]}},
            ["update_when", "'generator'", "float32", "boolean"],
        ),
        ({"update_when": {"generator": 1}}, ["update_when", "'generator'", "function"]),
        ({"update_when": {"painter": len}}, ["update_when", "'painter'", "'generator'"]),
        ({"update_when": len}, ["update_when", "{model:"]),
        ({"update_when": False}, ["update_when", "False", "{model:"]),
        (
            {"update_when": {"generator": lambda losses: losses["cycle"] > 0}},
            ["update_when", "'generator'", "'cycle'", "'discriminator'"],
        ),
        (
            {"update_when": {"generator": lambda losses: ops.ones(3) > 0}},
            ["update_when", "'generator'", "(3,)", "scalar"],
        ),
        ({"update_when": {"generator": lambda losses: None}}, ["'generator'", "None"]),
        ({"update_when": {"generator": lambda losses: losses}}, ["'generator'", "dict", "scalar"]),
        ({"nonfinite": "ignore"}, ["nonfinite", "'ignore'", "skip, raise, keep"]),
    ],
    ids=range(18),
)
@pytest.mark.once
def test_what_is_wrong_is_an_error_before_training(given, words):
    gan = TinyGAN()
    for name, value in given.items():
        setattr(gan, name, value)
    with pytest.raises(ValueError) as error:
        gan.fit(ones(), verbose=0)
    assert all(word in str(error.value) for word in words)
    assert (number(gan.generator.weight), number(gan.discriminator.weight)) == (2.0, 3.0)


@pytest.mark.once
def test_conditions_may_be_set_between_fits_and_not_within():
    gan = TinyGAN()
    gan.fit(ones(), verbose=0)
    gan.update_when = {"generator": lambda losses: losses["generator"] > 1e9}
    assert gan.fit(ones(), verbose=0).history["generator_updated"] == [0.0]

    def late(batch, logs):
        gan.update_every = {"generator": np.int64(2)}

    with pytest.raises(RuntimeError, match=r"`update_every` of '.*' was set in the middle of"):
        each = keras.callbacks.LambdaCallback(on_train_batch_end=late)
        gan.fit(ones(), verbose=0, callbacks=[each])
    late(0, {})
    gan.fit(ones(), verbose=0)


def test_steps_per_execution_are_refused_with_turns():
    pair = Pair()
    pair.update_start = {"a": 2}
    pair.compile(steps_per_execution=2)
    with pytest.raises(ValueError, match=r"update_start.*steps_per_execution=2.*'auto'"):
        pair.fit(ones(), verbose=0)


def test_a_step_is_compiled_for_each_set_of_models_that_is_due():
    gan = TinyGAN()
    gan.update_every = {"generator": 2, "discriminator": 2}
    gan.fit(np.ones((4, 1), "float32"), batch_size=1, verbose=0, on_device=False)
    steps = {due: None for due, _ in gan.train_function.steps}
    assert list(steps) == [frozenset(), frozenset(NAMES)]


@pytest.mark.once
def test_all_sets_of_models_that_are_ever_due():
    turns = (("a", Turn(every=2)), ("b", Turn(every=3, start=7, end=20)), ("c", Turn(start=30)))
    models = ("a", "b", "c", "d")
    seen = {due(dict(turns), models, batch) for batch in range(100)}
    assert set(variants(turns, models)) == seen
    assert variants((("a", Turn(every=1001)),), models) == ()
    assert variants(tuple((str(i), Turn(every=i)) for i in (2, 3, 5, 7)), tuple("2357")) == ()

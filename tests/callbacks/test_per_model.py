"""`For` applies any callback of Keras to one model of a system, and to no other."""

import re

import keras
import numpy as np
import pytest
from keras import callbacks as kc
from toys import Critics, Fooler, TinyGAN, number, ones
from trained import (
    TOYS,
    Apart,
    Around,
    after,
    approx,
    averages,
    averaging,
    loaded,
    train,
    weights,
)

import mlsystem as ml
from mlsystem.callbacks import Checkpoint, For

# Callbacks are the host's; those that change what an engine holds run on each.
pytestmark = pytest.mark.once

RATES = ("generator_learning_rate", "discriminator_learning_rate")


def test_each_learning_rate_has_a_callback_of_its_own():
    gan = TinyGAN()
    plateau = kc.ReduceLROnPlateau("val_loss", 0.5, patience=1, mode="max", min_lr=0.03)
    decay = kc.LearningRateScheduler(lambda epoch, rate: rate / 2)
    history = train(gan, For("generator", plateau), For("discriminator", decay), epochs=4)
    rates = [[0.1, 0.1, 0.05, 0.03], [0.005, 0.0025, 0.00125, 0.000625]]
    assert [history[name] for name in RATES] == [approx(rate) for rate in rates]
    assert "learning_rate" not in history
    assert number(gan.optimizers["generator"].learning_rate) == approx(0.03)


@pytest.mark.parametrize("name, kept", [("generator", 6), ("discriminator", 2)])
@pytest.mark.each_backend
def test_early_stopping_restores_one_model_and_ends_the_whole_fit(name, kept):
    gan = TinyGAN()
    stop = kc.EarlyStopping("val_loss", restore_best_weights=True)  # that of the discriminator
    history = train(gan, For(name, stop), epochs=3)  # rises from the second epoch on
    assert len(history["loss"]) == (3 if name == "generator" else 2)
    g, d = after(6 if name == "generator" else 4)
    assert weights(gan) == approx([g, after(kept)[1] if name == "discriminator" else d])
    assert gan.stop_training == (name == "discriminator")


def test_checkpoints_are_those_of_the_model(tmp_path):
    whole = kc.ModelCheckpoint(tmp_path / "{loss:.1f}.keras", "val_loss", save_best_only=True)
    only = kc.ModelCheckpoint(tmp_path / "{epoch}.weights.h5", save_weights_only=True, save_freq=3)
    gan = TinyGAN()
    history = train(gan, For("generator", whole), For("generator", only), epochs=2)
    names = {f"{loss:.1f}.keras" for loss in history["generator_loss"]} | {"2.weights.h5"}
    assert {path.name for path in tmp_path.iterdir()} == names
    best = f"{history['generator_loss'][-1]:.1f}.keras"
    model = keras.models.load_model(tmp_path / best, custom_objects=TOYS)
    assert type(model) is Fooler and number(model.weight) == approx(after(4)[0])
    model = TinyGAN(0.0, 0.0).setup(ones()).generator
    model.load_weights(tmp_path / "2.weights.h5")
    assert number(model.weight) == approx(after(3)[0])


@pytest.mark.parametrize("names", [("generator",), ("generator", "discriminator")], ids=str)
@pytest.mark.each_backend
def test_averages_of_one_model(names, tmp_path):
    gan = averaging(*names)
    save = kc.ModelCheckpoint(tmp_path / "{epoch}.weights.h5", save_weights_only=True)
    history = train(gan, For("generator", kc.SwapEMAWeights(swap_on_epoch=True)), save)
    expected = averages(2, ("generator",))
    assert history["val_generator_loss"][0] == approx(-np.prod(expected))
    assert loaded(tmp_path / "1.weights.h5", averaging(*names)) == approx(expected)
    assert weights(gan) == approx(averages(6, names))  # as Keras leaves them


@pytest.mark.parametrize("name, ends", [("a", 6), ("b", 3)])
def test_training_ends_when_the_loss_of_the_model_is_no_number(name, ends):
    x, batches = np.ones((6, 2), "float32"), []
    x[2, 1] = np.nan
    count = kc.LambdaCallback(on_train_batch_end=lambda batch, logs: batches.append(batch))
    nan = For(name, kc.TerminateOnNaN())
    apart = Apart()
    apart.nonfinite = "keep"
    apart.fit(x, batch_size=1, shuffle=False, verbose=0, callbacks=[nan, count])
    assert len(batches) == ends


def test_members_of_lists_and_of_nested_systems():
    halve = kc.LearningRateScheduler(lambda epoch, rate: rate / 2)
    critics = Critics()
    critics.fit(ones(), verbose=0, callbacks=[For("critics/1", halve)])
    halved = {"critics/1"}
    for name, optimizer in critics.optimizers.items():
        before = number(keras.optimizers.Adam().learning_rate) if name == "self" else 0.1
        assert number(optimizer.learning_rate) == approx(before / 2 if name in halved else before)
    around = Around()
    stop = kc.EarlyStopping("loss", baseline=-1.0, restore_best_weights=True)
    history = around.fit(
        np.ones((4, 2), "float32"), batch_size=2, verbose=0, callbacks=[For("inner/b", stop)]
    ).history
    assert stop.best == history["inner/b_loss"][0]


def test_weights_that_the_system_owns():
    critics = Critics()
    stop = kc.EarlyStopping("loss", baseline=-1.0, patience=2, restore_best_weights=True)
    critics.fit(ones(), epochs=2, verbose=0, callbacks=[For("self", stop)])
    assert number(critics.temperature) == approx(number(stop.best_weights[0]))


def test_what_callbacks_of_a_model_remember_is_resumed(tmp_path):
    def gan_and_callbacks():
        plateau = kc.ReduceLROnPlateau("val_loss", 0.5, patience=2)
        watched = [For("discriminator", plateau), kc.SwapEMAWeights(), Checkpoint(tmp_path)]
        return averaging("generator"), watched

    gan, callbacks = gan_and_callbacks()
    straight = train(gan, *callbacks[:2], epochs=4)
    train(gan_and_callbacks()[0], *gan_and_callbacks()[1], epochs=2)
    resumed, callbacks = gan_and_callbacks()
    history = train(resumed, *callbacks, epochs=4, resume=tmp_path)
    assert {name: values[-2:] for name, values in history.items()} == {
        name: values[-2:] for name, values in straight.items()
    }
    assert history["discriminator_learning_rate"][-1] == approx(0.005)


# What the callback sees ---------------------------------------------------------------------


class Watch(kc.Callback):
    """Remembers what it is told, and writes into the logs."""

    def __init__(self):
        super().__init__()
        self.told = {}

    def on_train_begin(self, logs=None):
        self.optimizer = self.model.optimizer

    def on_train_batch_end(self, batch, logs=None):
        self.told["batch", batch] = dict(logs)

    def on_test_end(self, logs=None):
        self.told["test"] = dict(logs)

    def on_epoch_end(self, epoch, logs=None):
        self.told["epoch", epoch] = dict(logs)
        logs["norm"] = sum(abs(weight).sum() for weight in self.model.get_weights())
        logs["val_norm"] = 0.0
        logs["val_generator_loss"] = 1.0


OWN = {"loss", "fake", "real"}
OTHERS = {"generator_loss"}


def test_what_the_callback_is_told_and_writes():
    gan, watch = TinyGAN(), Watch()
    history = train(gan, For("discriminator", watch), epochs=1)
    seen = OWN | OTHERS
    assert set(watch.told["batch", 1]) == set(watch.told["test"]) == seen
    rates = {"learning_rate", "generator_learning_rate"}
    assert set(watch.told["epoch", 0]) == seen | {f"val_{name}" for name in seen} | rates
    told = watch.told["epoch", 0]
    assert told["loss"] == history["discriminator_loss"][0]
    assert told["val_fake"] == history["val_discriminator_fake"][0]
    assert told["learning_rate"] == approx(0.01)
    assert history["discriminator_norm"] == approx([after(2)[1]])
    assert history["val_discriminator_norm"] == [0.0] and history["val_generator_loss"] == [1.0]
    assert watch.optimizer is gan.optimizers["discriminator"]
    assert watch.model.name == gan.discriminator.name
    assert number(watch.model(keras.ops.ones(()))) == approx(after(2)[1])
    assert watch.params == {"verbose": 0, "epochs": 1, "steps": 2}


def test_the_loss_of_the_system_for_a_model_that_has_none():
    class Chain(ml.MLSystem):
        def __init__(self):
            super().__init__()
            self.first = ml.MLModel(keras.layers.Dense(1))
            self.first_last = ml.MLModel(keras.layers.Dense(1), loss="mse", metrics=["accuracy"])

        def forward(self, x):
            return {"first_last": self.first_last(self.first(x))}

    first, last = Watch(), kc.EarlyStopping("val_accuracy", baseline=2.0)
    given = {"x": ones(8), "y": ones(8), "validation_data": (ones(), ones()), "epochs": 1}
    history = train(Chain(), For("first", first), For("first_last", last), **given)
    names = {"loss", "first_last_loss", "first_last_accuracy"}
    rates = {"learning_rate", "first_last_learning_rate"}
    told = first.told["epoch", 0]
    assert set(told) == names | {f"val_{name}" for name in names} | rates
    assert told["loss"] == history["loss"][0]
    assert last.best == history["val_first_last_accuracy"][0]  # found out to be better when higher
    assert last.monitor_op(2.0, 1.0)


def test_batches_are_for_those_who_listen(monkeypatch):
    calls = []
    told = keras.callbacks.CallbackList.on_train_batch_end
    monkeypatch.setattr(
        keras.callbacks.CallbackList,
        "on_train_batch_end",
        lambda self, *given: [calls.append(given), told(self, *given)],
    )
    train(TinyGAN(), For("generator", kc.EarlyStopping("val_loss")), epochs=1)
    assert calls == []
    each = kc.LambdaCallback(on_train_batch_end=lambda batch, logs: None)
    train(TinyGAN(), For("generator", each), epochs=1)
    assert len(calls) == 2


def test_all_that_keras_tells_goes_through():
    def recorder():
        told = []
        tell = kc.LambdaCallback()
        for hook in (name for name in dir(kc.Callback) if name.startswith("on_")):
            setattr(tell, hook, lambda *given, hook=hook, **more: told.append((hook, given[:-1])))
        return tell, told

    (plain, expected), (inner, told) = recorder(), recorder()
    train(TinyGAN(), plain, For("generator", inner), epochs=2)
    assert [hook for hook, _ in told] == [hook for hook, _ in expected]
    assert ("on_epoch_end", (1,)) in told and ("on_train_batch_end", (1,)) in told


# Errors -------------------------------------------------------------------------------------


class Frozen(Critics):
    """With a model that is not trained, and one whose learning rate follows a schedule."""

    def __init__(self):
        super().__init__()
        self.heads["left"].trainable = False
        decay = keras.optimizers.schedules.ExponentialDecay(0.1, 1, 0.5)
        self.compile({"critics/1": keras.optimizers.SGD(decay)})


def refuses(callbacks, *parts, system=Frozen):
    learner, x = system(), ones()
    begun = kc.LambdaCallback(on_train_begin=lambda logs: pytest.fail("training has started"))
    with pytest.raises(ValueError, match=".*".join(map(re.escape, parts))):
        learner.fit(x, x, verbose=0, callbacks=[*callbacks(), begun])


HALVE = kc.LearningRateScheduler(lambda epoch, rate: rate / 2)
NAMES = "'critics/0', 'critics/1', 'heads/left', 'self'"


@pytest.mark.parametrize(
    "callbacks, parts",
    [
        (lambda: [For("critic", kc.History())], ["'critic'", "no model of 'frozen'", NAMES]),
        (
            lambda: [For("critics", kc.History())],
            ["'critics'", "several models: 'critics/0', 'critics/1'", "of its own"],
        ),
        (
            lambda: [For("heads/left", HALVE)],
            ["'heads/left' is not trained", "LearningRateScheduler", "'critics/0'"],
        ),
        (
            lambda: [For("critics/1", HALVE)],
            ["'critics/1' follows ExponentialDecay", "LearningRateScheduler", "leave"],
        ),
        (
            lambda: [For("critics/0", HALVE), For("self", HALVE)],
            ["One LearningRateScheduler", "'critics/0'", "'self'", "one for each"],
        ),
        (lambda: [For(0, HALVE)], ["0", "string"]),
        (lambda: [For("self", kc.History)], ["'self'", "History", "Make an instance"]),
        (
            lambda: [For("self", [HALVE])],
            ["'self'", "one Keras callback", "Give each callback its own For"],
        ),
        (lambda: [For("self", For("self", HALVE))], ["'self'", "one Keras callback", "For object"]),
        (lambda: [For("self", kc.BackupAndRestore("x"))], ["Backup", "'self'", "without For"]),
        (lambda: [For("self", Checkpoint("x"))], ["Checkpoint", "'self'", "without For"]),
    ],
)
def test_what_cannot_be_is_said_before_training(callbacks, parts):
    refuses(callbacks, *parts)


def test_a_model_alone_has_no_models():
    refuses(
        lambda: [For("net", HALVE)],
        "'net'",
        "'alone'",
        "MLModel",
        "the callback itself",
        system=lambda: ml.MLModel(keras.layers.Dense(1), loss="mse", name="alone"),
    )


def test_a_callback_that_asks_for_what_the_model_has_not(tmp_path):
    class Plain(ml.MLSystem):
        def __init__(self):
            super().__init__()
            self.layer = keras.layers.Dense(1)

        def forward(self, x):
            return self.layer(x)

        def compute_losses(self, x, y, outputs):
            return {"square": keras.ops.mean(outputs**2)}

    save = kc.ModelCheckpoint(tmp_path / "x.weights.h5", save_weights_only=True)
    with pytest.raises(AttributeError, match=r"`save_weights` of 'layer', which is a Dense"):
        Plain().fit(ones(), verbose=0, callbacks=[For("layer", save)])
    keep = For("layer", kc.EarlyStopping("loss", restore_best_weights=True))
    Plain().fit(ones(), verbose=0, callbacks=[keep])

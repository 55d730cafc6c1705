"""Runs for debugging: a trial of a few batches, the same few over and over, a limit of time."""

import datetime
import re
from types import SimpleNamespace

import keras
import numpy as np
import pytest
from interrupted import Shuffled
from keras import callbacks as kc
from keras import ops
from killed import images, state
from toys import Drawing, TinyGAN, ones
from trained import after, approx, train, weights

import mlsystem as ml
from mlsystem.callbacks import Checkpoint, For
from mlsystem.fit import time_limit

# The host cuts the data and the time, and the steps are those of any training.
pytestmark = pytest.mark.once


class Digits(ml.MLModel):
    """Writes down which batches it is trained on, as the digits of a number: batch 3 is a 3."""

    def __init__(self):
        super().__init__(optimizer=keras.optimizers.SGD(0.0))
        self.weight = self.add_weight(shape=(), initializer="ones")
        self.digits = self.add_weight(shape=(), initializer="zeros", trainable=False)

    def forward(self, x, training=None):
        if training:
            self.digits.assign(self.digits * 10 + ops.mean(x))
        return x * self.weight

    def loss(self, x, y, outputs):
        return ops.mean(outputs)


class Numbered(keras.utils.PyDataset):
    """Four batches, of ones, twos, threes and fours, in an order that changes."""

    def __init__(self):
        super().__init__()
        self.order = [1, 2, 3, 4]

    def __len__(self):
        return 4

    def __getitem__(self, i):
        return (self.order[i] * ones(),)

    def on_epoch_end(self):
        self.order = self.order[1:] + self.order[:1]


def stream():
    for i in range(9):
        yield ((i % 4 + 1) * ones(),)


DATA = {
    "arrays": lambda: {"x": np.repeat([1.0, 2, 3, 4], 4)[:, None], "batch_size": 4},
    "PyDataset": lambda: {"x": Numbered(), "shuffle": False},
    "generator": lambda: {"x": stream(), "shuffle": False},
}
kinds = pytest.mark.parametrize("kind", DATA)


def digits(kind, **given):
    model = Digits()
    history = model.fit(**DATA[kind](), verbose=0, **given)
    return int(ops.convert_to_numpy(model.digits)), history


# Trials -------------------------------------------------------------------------------------


class Told(keras.callbacks.Callback):
    """Counts what it is told of."""

    def __init__(self):
        super().__init__()
        self.count = dict.fromkeys(["epoch", "train_batch", "test", "test_batch"], 0)
        for what in self.count:
            setattr(self, f"on_{what}_end", self.counting(what))

    def counting(self, what):
        def count(*given, logs=None):
            self.count[what] += 1

        return count


@pytest.mark.parametrize("batches", [True, 2, 7])
@kinds
def test_a_trial_goes_through_everything_once(kind, batches):
    told = Told()
    sets = {"a": (ones(12),), "b": Numbered()}
    given = {"epochs": 5, "validation_freq": 3, "validation_batch_size": 4}
    _, history = digits(kind, validation_data=sets, callbacks=[told], fast_run=batches, **given)
    n = int(batches)
    trained = min(n, 9 if kind == "generator" else 4)
    assert told.count == {
        "epoch": 1,
        "train_batch": trained,
        "test": 2,
        "test_batch": min(n, 3) + min(n, 4),
    }
    assert {"val_a_loss", "val_b_loss"} <= set(history.history)


def test_a_trial_validates_inside_an_epoch_too():
    _, history = digits("arrays", validation_data=(ones(),), validation_every=500, fast_run=2)
    assert history.validations["batch"] == [1, 2]


def test_a_trial_leaves_no_files_and_goes_on_from_none(tmp_path, capsys):
    run = tmp_path / "run"
    train(TinyGAN(), Checkpoint(run), epochs=2)
    before = {path: path.stat().st_mtime_ns for path in tmp_path.rglob("*")}
    gan, files = TinyGAN(), []
    saved = kc.ModelCheckpoint(tmp_path / "{epoch}.weights.h5", save_weights_only=True)
    look = kc.LambdaCallback(on_train_end=lambda logs: files.append(0))
    callbacks = [
        Checkpoint(run, best=("val_loss", "min")),
        saved,
        kc.CSVLogger(tmp_path / "log.csv"),
        kc.BackupAndRestore(tmp_path / "backup"),
        For("generator", kc.ModelCheckpoint(tmp_path / "{epoch}.keras")),
        ml.callbacks.Profile(tmp_path / "trace"),
        look,
    ]
    train(gan, *callbacks, fast_run=True, resume=run, verbose=2)
    assert weights(gan) == approx(after(1)) and files
    assert {path: path.stat().st_mtime_ns for path in tmp_path.rglob("*")} == before
    assert "A trial run" in capsys.readouterr().out
    assert saved.filepath == str(tmp_path / "{epoch}.weights.h5")


def test_a_trial_finds_what_fails_only_when_a_callback_writes(tmp_path):
    class Unsaved(TinyGAN):
        def __init__(self, *secrets):
            super().__init__()

    save = kc.ModelCheckpoint(tmp_path / "gan.keras")
    with pytest.raises(NotImplementedError, match="cannot be saved"):
        train(Unsaved(1), save, fast_run=True)


# The same batches ---------------------------------------------------------------------------


@kinds
def test_the_same_batches_in_the_same_order(kind):
    seen, history = digits(kind, epochs=3, overfit=2, validation_data=(ones(),))
    assert seen == 121212
    assert history.history["loss"] == history.history["val_loss"] == approx([1.5] * 3)


def test_they_stand_for_all_validation_data():
    sets = {"a": (ones(),), "b": Numbered()}
    given = {"validation_steps": 1, "validation_batch_size": 1}
    _, history = digits("arrays", overfit=3, validation_data=sets, **given)
    assert history.history["val_a_loss"] == history.history["val_b_loss"] == approx([2.0])
    _, history = digits("arrays", overfit=2, validation_split=0.5)
    assert history.history["val_loss"] == approx([1.5])
    assert "val_loss" not in digits("arrays", overfit=2)[1].history


def test_weights_of_samples_and_classes_count():
    def loss(n, **given):
        keras.utils.set_random_seed(0)
        net = keras.Sequential([keras.layers.Dense(1, kernel_initializer="ones")])
        model = ml.MLModel(net, loss="mse", optimizer="sgd")
        part = {name: v[:n] if hasattr(v, "shape") else v for name, v in given.items()}
        cut = {} if n < 16 else {"overfit": 2}
        part |= {"batch_size": 4, "verbose": 0, "epochs": 2, "shuffle": False}
        return model.fit(**part, **cut).history

    data = {"x": images(16), "y": (images(16)[:, 0] > 0).astype("int32")}
    for more in ({"sample_weight": np.arange(16.0)}, {"class_weight": {0: 1.0, 1: 5.0}}):
        assert loss(16, **data, **more)["loss"] == approx(loss(8, **data, **more)["loss"])


def test_more_than_there_are():
    with pytest.warns(UserWarning, match="overfit=7, and the data have 4 batches: it trains"):
        seen, _ = digits("arrays", epochs=2, overfit=7)
    assert seen == 12341234


def test_they_can_be_gone_on_with(tmp_path):
    def fit(folder, epochs):
        keras.utils.set_random_seed(0)
        system, given = Drawing(), {"callbacks": [Checkpoint(folder)], "resume": folder}
        system.fit(Shuffled(), epochs=epochs, overfit=2, verbose=0, **given)
        return state(system)

    fit(tmp_path / "a", 1)
    again, whole = fit(tmp_path / "a", 3), fit(tmp_path / "b", 3)
    assert all(np.array_equal(a, b) for a, b in zip(again, whole, strict=True))


# A limit of time ----------------------------------------------------------------------------


@pytest.fixture
def clock(monkeypatch):
    """A clock that a callback moves on by a second at the end of each batch."""
    now = SimpleNamespace(seconds=0.0, monotonic=lambda: now.seconds)
    monkeypatch.setattr(time_limit, "time", now)

    class Tick(keras.callbacks.Callback):
        def on_train_batch_end(self, batch, logs=None):
            now.seconds += 1.0

    return Tick


@pytest.mark.parametrize("limit", [4.5, datetime.timedelta(seconds=5)])
def test_training_ends_after_the_batch_when_the_time_is_over(clock, limit, capsys):
    told = Told()
    gan = TinyGAN()
    given = {"x": ones(12), "epochs": 9, "max_time": limit, "verbose": 2}
    history = train(gan, clock(), told, **given)
    assert weights(gan) == approx(after(5)) and gan.stop_training
    assert told.count["epoch"] == told.count["test"] == 2  # the end of an epoch as always
    assert len(history["val_loss"]) == 2
    assert "The time is over: training ends after batch 2 of the epoch." in capsys.readouterr().out


def test_a_run_within_the_time_is_not_ended(clock):
    gan = TinyGAN()
    train(gan, clock(), epochs=2, max_time=4)  # over with the last batch
    assert weights(gan) == approx(after(4)) and not gan.stop_training


@pytest.mark.parametrize("kind, every", [("arrays", "epoch"), ("generator", 100)])
def test_a_run_that_was_out_of_time_goes_on(clock, tmp_path, every, kind):
    def fit(folder, *limits):
        for limit in (*limits, None):
            keras.utils.clear_session()
            keras.utils.set_random_seed(0)
            system = Drawing()
            data = {"x": images(), "batch_size": 16, "validation_data": (images(8),)}
            if kind == "generator":  # of which nobody knows the length
                data = {
                    "x": (pair for pair in [(images(16),)] * 99),
                    "steps_per_epoch": 4,
                    "shuffle": False,
                }
            callbacks = [
                Checkpoint(folder, every=every),
                clock(),
                kc.EarlyStopping("loss", patience=3),
            ]
            given = {"epochs": 4, "verbose": 0, "max_time": limit, "resume": folder}
            history = system.fit(**data, callbacks=callbacks, **given).history
        return state(system), history

    # In an epoch, at the end of one, and at the last batch but one.
    broken, whole = fit(tmp_path / "a", 2, 2, 5), fit(tmp_path / "b")
    assert broken[1] == whole[1]
    assert all(np.array_equal(a, b) for a, b in zip(broken[0], whole[0], strict=True))


# Errors -------------------------------------------------------------------------------------

COUNT = "give True, or a number of batches"
WRONG = {
    f"fast_run=0; {COUNT}": {"fast_run": 0},
    f"fast_run=-1; {COUNT}": {"fast_run": -1},
    f"fast_run='yes'; {COUNT}": {"fast_run": "yes"},
    "overfit=0; give a number": {"overfit": 0},
    "overfit=True; give a number": {"overfit": True},
    "fast_run=True and overfit=2": {"fast_run": True, "overfit": 2},
    "max_time=0; give seconds": {"max_time": 0},
    "max_time=-1.5; give seconds": {"max_time": -1.5},
    "max_time=nan; give seconds": {"max_time": float("nan")},
    "max_time='1h'; give seconds": {"max_time": "1h"},
    "max_time=datetime.timedelta(0)": {"max_time": datetime.timedelta(0)},
    "max_time=True; give": {"max_time": True},
    "fit(fast_run=) takes its callbacks as a list": {"fast_run": 1, "callbacks": kc.CallbackList()},
    "fit(max_time=) takes its callbacks as a list": {"max_time": 1, "callbacks": kc.CallbackList()},
}


@pytest.mark.parametrize("message", WRONG)
def test_wrong_arguments_are_errors_before_training(message):
    gan = TinyGAN()
    with pytest.raises(ValueError, match=re.escape(message)):
        gan.fit(ones(), verbose=0, **WRONG[message])
    assert gan.forwards == []

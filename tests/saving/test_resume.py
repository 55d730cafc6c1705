"""Training that stops anywhere and goes on is training that never stopped, to the last bit."""

import collections
import functools
import os
import random
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import keras
import numpy as np
import pytest
from interrupted import BATCH, ROWS, Interrupt, Interrupted, Shuffled, small
from killed import System, images, state, train
from toys import TinyGAN

import mlsystem as ml
from mlsystem.engine import engine, random_state
from mlsystem.saving import checkpoint_file, data_position
from mlsystem.saving.callback_state import CallbackStates

# The host writes the files and goes on from them; what engines keep is in the tests of each.
pytestmark = pytest.mark.once

EPOCHS = 4


class Stateful(keras.utils.PyDataset):
    """Says itself what it remembers, in an attribute that nobody would look into."""

    def __init__(self):
        super().__init__()
        self.memory = {"rng": np.random.default_rng(4)}

    def __len__(self):
        return 4

    def __getitem__(self, i):
        return self.memory["rng"].normal(size=(BATCH, 3)).astype("float32")

    def get_state(self):
        return self.memory["rng"].bit_generator.state

    def set_state(self, state):
        self.memory["rng"].bit_generator.state = state


def stream():
    rng = np.random.default_rng(5)
    while True:
        yield (rng.normal(size=(BATCH, 3)).astype("float32"),)


DATA = {
    "arrays": lambda: {"x": images(), "batch_size": BATCH, "validation_data": (images(8),)},
    "steps of an epoch": lambda: {"x": images(), "batch_size": 8, "steps_per_epoch": 3},
    "PyDataset": lambda: {"x": Shuffled()},
    "a data set with a state": lambda: {"x": Stateful(), "shuffle": False},
    "generator": lambda: {"x": stream(), "steps_per_epoch": 4},
}


def fit(folder, data, every=1, stop=None, epochs=EPOCHS, callbacks=(), **compiled):
    """Trains from the last checkpoint; returns all variables and the history."""
    keras.utils.clear_session()
    keras.utils.set_random_seed(0)
    system = System()
    if compiled:
        system.compile(**compiled)
    checkpoint = ml.callbacks.Checkpoint(folder, every=every, best=("denoiser_loss", "min"))
    callbacks = [checkpoint, *callbacks, *([Interrupt(stop)] if stop else [])]
    given = {"epochs": epochs, "verbose": 0, "callbacks": callbacks, "resume": folder}
    history = system.fit(**data(), **given).history
    return state(system), history


@functools.cache
def whole(kind, epochs=EPOCHS):
    """A run that was not broken off."""
    with tempfile.TemporaryDirectory() as folder:
        return fit(folder, DATA[kind], epochs=epochs)


def broken(folder, data, stops, **given):
    for stop in stops:
        with pytest.raises(Interrupted):
            fit(folder, data, stop=stop, **given)
    return fit(folder, data, **given)


def assert_same(run, other):
    assert run[1] == other[1]
    assert all(np.array_equal(a, b) for a, b in zip(run[0], other[0], strict=True))


@pytest.mark.filterwarnings("ignore:Your input ran out of data")
@pytest.mark.filterwarnings("ignore:`shuffle=True` was passed, but will be ignored")
@pytest.mark.parametrize(
    "kind", [pytest.param("arrays", marks=pytest.mark.each_backend), *list(DATA)[1:]]
)
def test_a_run_that_was_broken_off_ends_as_one_that_was_not(kind, tmp_path):
    stops = [6, 3] if kind == "arrays" else [6]
    assert_same(broken(tmp_path, DATA[kind], stops), whole(kind))


def test_the_end_of_an_epoch_is_a_place_to_go_on_from(tmp_path):
    again = broken(tmp_path, DATA["arrays"], [9], every="epoch")
    assert_same(again, whole("arrays"))
    assert len(again[1]["loss"]) == EPOCHS


@pytest.mark.each_backend
def test_steps_per_execution_go_on_in_groups(tmp_path):
    again = broken(tmp_path, DATA["arrays"], [3], steps_per_execution=2)
    assert_same(again, fit(tmp_path / "whole", DATA["arrays"], steps_per_execution=2))


@pytest.mark.each_backend
def test_a_model_alone_goes_on(tmp_path):
    def run(folder, stop=None):
        keras.utils.set_random_seed(0)
        net = keras.Sequential([keras.layers.Dense(4), keras.layers.Dropout(0.5)])
        model = ml.MLModel(net, loss="mse", optimizer="adam", metrics=["mae"])
        callbacks = [ml.callbacks.Checkpoint(folder, every=1), *([Interrupt(stop)] if stop else [])]
        x, y = images(), np.ones((64, 4), "float32")
        given = {"validation_data": (x, y), "callbacks": callbacks, "resume": folder}
        history = model.fit(x, y, batch_size=16, epochs=3, verbose=0, **given).history
        return state(model), history

    with pytest.raises(Interrupted):
        run(tmp_path / "broken", stop=6)
    assert_same(run(tmp_path / "broken"), run(tmp_path / "whole"))


def test_callbacks_remember(tmp_path):
    def callbacks():
        stopping = keras.callbacks.EarlyStopping("loss", patience=9, restore_best_weights=True)
        plateau = keras.callbacks.ReduceLROnPlateau("loss", patience=1, min_delta=9.0)
        decay = keras.callbacks.LearningRateScheduler(lambda epoch, rate: 0.9 * rate)
        return [stopping, plateau, decay]

    folder = tmp_path / "broken"
    first, second = callbacks(), callbacks()
    unbroken = fit(tmp_path / "whole", DATA["arrays"], callbacks=first)
    with pytest.raises(Interrupted):
        fit(folder, DATA["arrays"], callbacks=callbacks(), stop=10)
    assert_same(fit(folder, DATA["arrays"], callbacks=second), unbroken)
    for a, b in zip(first[:2], second[:2], strict=True):
        assert (a.best, a.wait) == (b.best, b.wait)


def test_a_run_that_is_complete_is_given_back(tmp_path):
    first = fit(tmp_path, DATA["arrays"], every=3, epochs=2)
    assert_same(fit(tmp_path, DATA["arrays"], every=3, epochs=2), first)
    assert_same(fit(tmp_path, DATA["arrays"], every=3), whole("arrays"))


def test_a_run_that_a_callback_ended_stays_so(tmp_path):
    def ended(**given):
        stopping = keras.callbacks.EarlyStopping("loss", patience=0, min_delta=99.0)
        return fit(tmp_path, DATA["arrays"], every="epoch", callbacks=[stopping], **given)

    first = ended()
    assert len(first[1]["loss"]) == 2
    assert_same(ended(), first)
    longer = fit(tmp_path, DATA["arrays"], every="epoch")  # without the callback that ended it
    assert len(longer[1]["loss"]) == EPOCHS


def test_callbacks_are_known_by_what_they_monitor(tmp_path):
    stopping = keras.callbacks.EarlyStopping
    both = [stopping(f"{name}_loss", mode="min") for name in ("denoiser", "critic")]
    fit(tmp_path, DATA["arrays"], epochs=1, callbacks=both)
    other = stopping("critic_loss", mode="min")
    fit(tmp_path, DATA["arrays"], epochs=1, callbacks=[other])
    assert other.best == both[1].best != both[0].best


@pytest.mark.each_backend
def test_a_checkpoint_draws_nothing(tmp_path):
    plain = System()
    keras.utils.set_random_seed(0)
    state_of_python = random.getstate()
    plain.fit(images(), verbose=0, shuffle=False, callbacks=[ml.callbacks.Checkpoint(tmp_path)])
    if keras.backend.backend() != "torch":  # there the captured step asks for Keras' generator
        assert random.getstate() == state_of_python


def test_where_training_goes_on_is_printed(tmp_path, capsys):
    system = System()
    system.fit(images(), resume=tmp_path, verbose=2, callbacks=[checkpoint(tmp_path)])
    assert "holds no checkpoint yet" in capsys.readouterr().out
    system.fit(images(), epochs=2, resume=tmp_path, verbose=2)
    assert "resumes from" in (out := capsys.readouterr().out)
    assert "step-0000000002.weights.h5, epoch 2." in out


def test_that_nothing_is_left_to_train_is_printed(tmp_path, capsys):
    def run(epochs):
        stopping = keras.callbacks.EarlyStopping("loss", patience=0, min_delta=99.0)
        small(tmp_path, [stopping], every="epoch", epochs=epochs, verbose=2)
        return capsys.readouterr().out

    run(epochs=1)
    assert "The run is complete" in (out := run(epochs=1)) and "resumes" not in out
    run(epochs=2)
    ended = run(epochs=3)
    assert "ended by its callbacks after epoch 2" in ended and "EarlyStopping(loss)" in ended


def checkpoint(folder):
    return ml.callbacks.Checkpoint(folder)


def test_files_are_kept_by_number_and_by_value(tmp_path):
    class Losses(keras.callbacks.Callback):
        def on_epoch_end(self, epoch, logs=None):
            logs["value"] = [3.0, 1.0, 2.0, 4.0][epoch]

    checkpoint = ml.callbacks.Checkpoint(tmp_path, every=3, keep=2, best=("value", "min"))
    system = System()
    system.fit(
        images(),
        batch_size=16,
        epochs=4,
        verbose=0,
        callbacks=[Losses(), checkpoint],
        shuffle=False,
    )
    names = sorted(path.name for path in tmp_path.iterdir())
    steps = ["step-0000000015.weights.h5", "step-0000000016.weights.h5"]
    assert names == ["best.weights.h5", *steps]
    system.load_weights(tmp_path / "best.weights.h5")
    assert int(system.optimizer.iterations) == 8
    assert checkpoint.best_value == 1.0


@pytest.mark.parametrize("moment", ["fsync", "replace"])
def test_a_checkpoint_that_cannot_be_finished_leaves_the_last_one(moment, tmp_path, monkeypatch):
    fit(tmp_path, DATA["arrays"], every="epoch", epochs=1)
    before = {path.name: path.read_bytes() for path in tmp_path.iterdir()}

    def fail(*args, **kwargs):
        raise OSError("the disk is full")

    monkeypatch.setattr(os, moment, fail)
    with pytest.raises(OSError, match="the disk is full"):
        fit(tmp_path, DATA["arrays"], every="epoch", epochs=2)
    monkeypatch.undo()
    assert {path.name: path.read_bytes() for path in tmp_path.iterdir()} == before
    assert_same(fit(tmp_path, DATA["arrays"], every="epoch", epochs=2), whole("arrays", 2))
    assert not list(tmp_path.glob(".*"))


def test_a_killed_run_ends_as_one_that_was_not(tmp_path, pytestconfig):
    kills = pytestconfig.getoption("kills")
    epochs = 10 + 10 * kills
    for _ in range(kills):
        kill(tmp_path, epochs)
    out = tmp_path / "out.npz"
    subprocess.run(command(tmp_path, epochs, out), check=True, timeout=300)
    ended = np.load(out)
    unbroken = train(tmp_path / "whole", epochs)
    assert len(ended) == len(unbroken)
    assert all(np.array_equal(a, ended[f"arr_{i}"]) for i, a in enumerate(unbroken))
    assert bytes(unbroken[-1]).count(b"\n") == 1 + epochs


def kill(folder, epochs):
    """Starts the run and kills it at some moment of its training."""
    script = command(folder, epochs, folder / "killed.npz")
    with subprocess.Popen(script, stdout=subprocess.PIPE, text=True) as process:
        for _ in range(random.Random().randint(1, 60)):
            assert process.stdout.readline() == "training\n"
        time.sleep(random.Random().uniform(0, 0.03))
        process.kill()
    assert process.returncode == -9


def command(folder, epochs, out):
    script = Path(__file__).parents[1] / "killed.py"
    return [sys.executable, str(script), str(folder / "run"), str(epochs), str(out)]


# What callbacks and data remember -------------------------------------------------------------


class Collects(keras.callbacks.Callback):
    def __init__(self):
        super().__init__()
        self.epochs = []

    def on_epoch_begin(self, epoch, logs=None):
        self.epochs.append(epoch)


class Halves(keras.callbacks.Callback):
    """Sets the learning rate from that at the beginning."""

    def on_train_begin(self, logs=None):
        self.base = float(keras.ops.convert_to_numpy(self.model.optimizer.learning_rate))

    def on_epoch_begin(self, epoch, logs=None):
        self.model.optimizer.learning_rate = self.base * 0.5**epoch


class Draws(keras.callbacks.Callback):
    def on_train_batch_begin(self, batch, logs=None):
        np.random.rand()


class DrawsFirst(keras.callbacks.Callback):
    def on_epoch_begin(self, epoch, logs=None):
        np.random.rand()
        if keras.backend.backend() == "torch":
            import torch

            torch.rand(1)


class Counts(keras.callbacks.Callback):
    """Keeps dicts and lists of classes of their own."""

    def __init__(self):
        super().__init__()
        self.counter, self.lists = collections.Counter(), collections.defaultdict(list)
        self.user = collections.UserList()

    def on_train_batch_end(self, batch, logs=None):
        self.counter["batches"] += 1
        self.lists[batch].append(batch)


@pytest.mark.parametrize("kind", [Collects, Halves, Draws, Counts])
def test_callbacks_do_in_a_resumed_run_what_they_did(kind, tmp_path):
    first, second = kind(), kind()
    whole = small(tmp_path / "whole", [first])
    with pytest.raises(Interrupted):
        small(tmp_path / "broken", [kind()], stop=7)
    again = small(tmp_path / "broken", [second])
    assert all(np.array_equal(a, b) for a, b in zip(whole, again, strict=True))
    found = [
        {k: v for k, v in vars(c).items() if k not in ("_model", "params")} for c in (first, second)
    ]
    assert found[0] == found[1]
    assert [type(value) for value in found[0].values()] == [type(v) for v in found[1].values()]


@pytest.mark.filterwarnings("ignore:Your input ran out of data")
@pytest.mark.parametrize("steps", [5, 3])
@pytest.mark.each_backend
def test_callbacks_may_draw_where_an_epoch_begins(steps, tmp_path):
    given = {"every": "epoch", "steps_per_epoch": steps}
    whole = small(tmp_path / "whole", [DrawsFirst()], **given)
    with pytest.raises(Interrupted):
        small(tmp_path / "broken", [DrawsFirst()], stop=steps + 1, **given)
    again = small(tmp_path / "broken", [DrawsFirst()], **given)
    assert all(np.array_equal(a, b) for a, b in zip(whole, again, strict=True))


class Freezes(keras.callbacks.Callback):
    """Freezes a model where the training begins, and thaws it within the second epoch."""

    def __init__(self):
        super().__init__()
        self.epoch = 0

    def on_train_begin(self, logs=None):
        self.model.generator.trainable = False

    def on_epoch_begin(self, epoch, logs=None):
        self.epoch = epoch
        self.model.discriminator.trainable = epoch == 0

    def on_train_batch_end(self, batch, logs=None):
        if self.epoch == batch == 1:
            self.model.generator.trainable = self.model.discriminator.trainable = True


@pytest.mark.filterwarnings("ignore:'tiny_gan.*' has no trainable weights")
def test_what_callbacks_froze_stays_so(tmp_path):
    def run(folder, stop=None):
        gan = TinyGAN()
        gan.compile(run_eagerly=True)
        given = {"x": ROWS[:, :1], "batch_size": 4, "epochs": 3, "verbose": 0, "shuffle": False}
        last = [ml.callbacks.Checkpoint(folder, every=1), *([Interrupt(stop)] if stop else [])]
        gan.fit(**given, resume=folder, callbacks=[Freezes(), *last])
        return state(gan)

    whole = run(tmp_path / "whole")
    with pytest.raises(Interrupted):
        run(tmp_path / "broken", stop=9)
    again = run(tmp_path / "broken")
    assert all(np.array_equal(a, b) for a, b in zip(whole, again, strict=True))


class Rows(keras.utils.PyDataset):
    """Batches of 4 rows, in an order of its own."""

    def __init__(self, seed=0):
        super().__init__()
        self.order = np.arange(20)
        self.prepare(seed)

    def __len__(self):
        return 5

    def __getitem__(self, i):
        rows = ROWS[self.order[4 * i : 4 * i + 4]]
        return rows, rows[:, :1]

    def prepare(self, seed):
        pass


class HoldsGenerator(Rows):
    def prepare(self, seed):
        self.generator = np.random.RandomState(3)

    def on_epoch_end(self):
        self.generator.shuffle(self.order)


class GivesItself(Rows):
    """Hands out the very array that it changes."""

    def __getitem__(self, i):
        self.order[:] = np.roll(self.order, 3)
        return super().__getitem__(0)

    def state_dict(self):
        return {"order": self.order}

    def load_state_dict(self, state):
        self.order = np.array(state["order"])


class OrderedOnce(Rows):
    """In an order drawn when it is made, in each process another."""

    def prepare(self, seed):
        self.order = np.random.default_rng(seed).permutation(20)


class NoisyFromTheStart(Rows):
    """Adds noise by a generator that in each process begins elsewhere."""

    def prepare(self, seed):
        self.rng = np.random.default_rng(seed)

    def __getitem__(self, i):
        rows, targets = super().__getitem__(i)
        return rows + self.rng.normal(size=rows.shape).astype("float32"), targets


@pytest.mark.parametrize("kind", [HoldsGenerator, GivesItself, OrderedOnce, NoisyFromTheStart])
@pytest.mark.parametrize("stop", [3, 8])
def test_data_go_on_as_they_did(kind, stop, tmp_path):
    whole = small(tmp_path / "whole", data=kind(), shuffle=False)
    with pytest.raises(Interrupted):
        small(tmp_path / "broken", data=kind(), shuffle=False, stop=stop)
    again = small(tmp_path / "broken", data=kind(seed=1), shuffle=False)
    assert all(np.array_equal(a, b) for a, b in zip(whole, again, strict=True))


def test_generators_that_data_read_ahead_from_are_left_alone(monkeypatch):
    monkeypatch.setattr(engine, "reads_ahead", lambda: True)
    monkeypatch.setattr(random_state, "restore", lambda state: pytest.fail("restored"))
    data_position.restore({}, data_position.reads_ahead(Rows()))


def test_large_arrays_of_callbacks_are_not_held(tmp_path):
    callback = Collects()
    callback.epochs, callback.same = np.zeros((100, 3)), np.ones(100)
    states = CallbackStates([callback], [])
    states.begin()
    leaves = keras.tree.flatten(states.start)
    assert not any(isinstance(leaf, np.ndarray) for leaf in leaves)
    callback.epochs[99, 2] = 1.0
    assert list(states.read()[0]["attributes"]) == ["epochs"]


@pytest.mark.filterwarnings("ignore:Your input ran out of data")
@pytest.mark.filterwarnings("ignore:`shuffle=True` was passed, but will be ignored")
def test_a_batch_that_never_was_is_not_counted(tmp_path):
    model = ml.MLModel(keras.Sequential([keras.layers.Dense(1)]), loss="mse")
    model.compile("sgd", run_eagerly=True)
    batches = ((ROWS[:4], ROWS[:4, :1]) for _ in range(6))
    model.fit(batches, verbose=0, callbacks=[checkpoint(tmp_path / "generator")])
    model.compile("sgd", steps_per_execution=2)
    given = {"batch_size": 4, "epochs": 2, "verbose": 0}
    model.fit(ROWS, ROWS[:, :1], **given, callbacks=[checkpoint(tmp_path / "groups")])
    names = {path.parent.name: path.name for path in tmp_path.glob("*/step-*")}
    steps = {"generator": 6, "groups": 10}
    assert names == {name: f"step-{step:010d}.weights.h5" for name, step in steps.items()}


def test_nan_is_not_the_best(tmp_path):
    class Losses(keras.callbacks.Callback):
        def on_epoch_end(self, epoch, logs=None):
            logs["value"] = [float("nan"), 1.0, 2.0][epoch]

    kept = ml.callbacks.Checkpoint(tmp_path / "best", best=("value", "min"))
    small(tmp_path / "steps", [Losses(), kept], resume=None)
    assert kept.best_value == 1.0


def test_a_checkpoint_knows_no_more_of_an_earlier_fit(tmp_path):
    used = checkpoint(tmp_path / "used")
    small(tmp_path / "steps", [used], epochs=1, resume=None)
    model = keras.Sequential([keras.layers.Dense(3)])
    model.compile("sgd", "mse")
    with pytest.raises(ValueError, match="MLModel or MLSystem"):
        model.fit(images(), images(), verbose=0, callbacks=[used])


# What is refused ------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("given", "word"),
    [
        ({"every": 0}, "every=0"),
        ({"every": "batch"}, "'batch'"),
        ({"keep": 0}, "keep=0"),
        ({"best": "val_loss"}, "'val_loss'"),
        ({"best": ("val_loss", "least")}, "least"),
    ],
)
def test_arguments_are_checked(given, word, tmp_path):
    with pytest.raises(ValueError, match=word):
        ml.callbacks.Checkpoint(tmp_path, **given)


def test_what_is_no_place_is_refused(tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(ValueError, match="which is a file"):
        ml.callbacks.Checkpoint(tmp_path / "file")
    with pytest.raises(TypeError, match="folder 3"):
        ml.callbacks.Checkpoint(3)
    with pytest.raises(TypeError, match="resume=True"):
        System().fit(images(), resume=True)
    with pytest.raises(TypeError, match="fit got resume=''; give the folder"):
        System().fit(images(), resume="")
    with pytest.raises(ValueError, match="got '' as its folder"):
        ml.callbacks.Checkpoint("")
    with pytest.raises(ValueError, match="neither a folder nor a checkpoint"):
        System().fit(images(), resume=tmp_path / "absent.keras")
    spellings = [tmp_path / "other", tmp_path / "a" / ".." / "b", tmp_path / "b"]
    with pytest.raises(ValueError, match=r"Two Checkpoints write to '.*b'"):
        System().fit(images(), callbacks=[checkpoint(folder) for folder in spellings])
    with pytest.raises(ValueError, match="no instance of a Callback"):
        System().fit(images(), callbacks=[ml.callbacks.Checkpoint])


@pytest.mark.filterwarnings("ignore:`shuffle=True` was passed, but will be ignored")
def test_data_that_end_too_early_are_refused(tmp_path):
    def few():
        return {"x": ((images(BATCH),) for _ in range(2)), "steps_per_epoch": 4}

    with pytest.raises(Interrupted):
        fit(tmp_path, DATA["generator"], stop=4)
    with pytest.raises(ValueError, match=r"ended after 2 batches, and the .* 3"):
        fit(tmp_path, few)


def test_a_folder_of_another_run_is_not_written_to(tmp_path):
    fit(tmp_path, DATA["arrays"], epochs=1)
    with pytest.raises(ValueError, match="step-0000000004"):
        System().fit(
            images(), batch_size=16, verbose=0, callbacks=[ml.callbacks.Checkpoint(tmp_path)]
        )


def test_other_data_inside_an_epoch_is_refused(tmp_path):
    with pytest.raises(Interrupted):
        fit(tmp_path, DATA["arrays"], stop=2)
    with pytest.raises(ValueError, match="4 batches, and this fit has 8"):
        System().fit(images(), batch_size=8, verbose=0, resume=tmp_path)


def test_another_backend_is_refused(tmp_path, monkeypatch):
    small(tmp_path, epochs=1)
    read = checkpoint_file.read
    monkeypatch.setattr(checkpoint_file, "read", lambda path: read(path) | {"backend": "numpy"})
    with pytest.raises(ValueError, match="was written on numpy, and Keras runs on"):
        small(tmp_path)


def test_what_does_not_fit_is_refused_before_callbacks_hear_of_it(tmp_path):
    small(tmp_path, epochs=1)
    heard = keras.callbacks.LambdaCallback(on_train_begin=lambda logs: pytest.fail("heard"))
    with pytest.raises(ValueError, match="does not fit"):
        System().fit(images(), epochs=2, verbose=0, resume=tmp_path, callbacks=[heard])


def test_damaged_and_foreign_files_are_refused_and_change_nothing(tmp_path):
    fit(tmp_path, DATA["arrays"], epochs=1, every="epoch")
    [path] = tmp_path.glob("step-*")
    content, system = path.read_bytes(), System().setup(images(8))
    plain = tmp_path / "plain.weights.h5"
    system.save_weights(plain)
    before = state(system)
    for damaged in (content[: len(content) // 2], b"", b"text"):
        path.write_bytes(damaged)
        with pytest.raises(ValueError, match="is no checkpoint, or a damaged one"):
            system.fit(images(), epochs=2, verbose=0, resume=tmp_path)
    with pytest.raises(ValueError, match="is no checkpoint, or a damaged one"):
        system.fit(images(), epochs=2, verbose=0, resume=plain)
    with pytest.raises(FileNotFoundError):
        system.fit(images(), epochs=2, verbose=0, resume=tmp_path / "absent.weights.h5")
    assert all(np.array_equal(a, b) for a, b in zip(before, state(system), strict=True))


def test_the_best_of_what_is_not_logged_is_told(tmp_path):
    checkpoint = ml.callbacks.Checkpoint(tmp_path, best=("val_loss", "min"))
    with pytest.warns(UserWarning, match=r"'val_loss', which is not logged. The logs are .*loss"):
        System().fit(images(), verbose=0, callbacks=[checkpoint])


def test_a_plain_keras_model_cannot_be_followed(tmp_path):
    model = keras.Sequential([keras.layers.Dense(3)])
    model.compile("sgd", "mse")
    with pytest.raises(ValueError, match="MLModel or MLSystem"):
        model.fit(images(), images(), verbose=0, callbacks=[ml.callbacks.Checkpoint(tmp_path)])


@pytest.mark.each_backend
def test_metrics_of_members_go_on(tmp_path):
    """The metrics of a resumed run are those that the compiled step was made with."""
    x, y = images(), np.arange(len(images())) % 3

    def run(epochs, folder):
        keras.utils.set_random_seed(0)
        system = Labelled(keras.layers.Dense(3, activation="softmax"))
        system.compile(metrics={"label": ["sparse_categorical_accuracy"]})
        checkpoint = ml.callbacks.Checkpoint(folder)
        given = {"batch_size": 8, "callbacks": [checkpoint], "resume": folder, "verbose": 0}
        return system.fit(x, {"label": y}, epochs=epochs, **given).history

    whole = run(2, tmp_path / "whole")
    run(1, tmp_path / "parts")
    assert run(2, tmp_path / "parts") == whole
    assert "label_sparse_categorical_accuracy" in whole


class Labelled(ml.MLSystem):
    def __init__(self, net):
        super().__init__()
        self.label = ml.MLModel(net, loss="sparse_categorical_crossentropy")

    def forward(self, x):
        return {"label": self.label(x)}

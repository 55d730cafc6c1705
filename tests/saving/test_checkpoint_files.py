"""The files of a Checkpoint: whose folder it is, what happens on a full disk, and in a thread."""

import errno
import os
import shutil
import socket
import subprocess
import sys
import threading
import time

import keras
import numpy as np
import pytest
from interrupted import ROWS, Interrupt, Interrupted
from killed import state

import mlsystem as ml
from mlsystem.saving import checkpoint_file, folder_lock
from mlsystem.saving.folder_lock import Lock

pytestmark = pytest.mark.once


def train(checkpoint, *callbacks, epochs=2, **given):
    """Epochs of 5 batches, run eagerly; returns the model."""
    keras.utils.set_random_seed(0)
    model = ml.MLModel(keras.Sequential([keras.layers.Dense(1)]), loss="mse")
    model.compile(keras.optimizers.Adam(0.05), run_eagerly=True)
    given = {"epochs": epochs, "batch_size": 4, "verbose": 0} | given
    model.fit(ROWS, ROWS[:, :1], callbacks=[*callbacks, checkpoint], **given)
    return model


def names(folder):
    return sorted(path.name for path in folder.iterdir())


def step(batches):
    return f"step-{batches:010d}.weights.h5"


class AfterBatch(keras.callbacks.Callback):
    """Calls a function after one batch, or after each."""

    def __init__(self, do, at=None):
        super().__init__()
        self.do, self.at, self.seen = do, at, 0

    def on_train_batch_end(self, batch, logs=None):
        self.seen += 1
        if self.at in (None, self.seen):
            self.do()


# One folder, one run --------------------------------------------------------------------------


def ended_process():
    with subprocess.Popen([sys.executable, "-c", ""]) as process:
        process.wait()
    return process.pid


def put_lock(folder, pid, started=None, host=None):
    started = folder_lock._started(pid) if started is None else started
    path = folder / f".lock.{pid}.{started}.{host or socket.gethostname()}"
    path.write_text("")
    return path


def test_a_second_run_is_refused_while_the_first_is_alive(tmp_path):
    path = put_lock(tmp_path, os.getppid())
    with pytest.raises(RuntimeError, match=rf"process {os.getppid()} on .*{tmp_path.name}'"):
        train(ml.callbacks.Checkpoint(tmp_path))
    assert names(tmp_path) == [path.name]


def test_the_lock_of_a_dead_process_is_taken_over(tmp_path):
    dead = [put_lock(tmp_path, ended_process(), "7"), put_lock(tmp_path, os.getpid())]
    if sys.platform == "linux":  # where one knows when a process started
        dead.append(put_lock(tmp_path, os.getppid(), "7"))
    dead.append(put_lock(tmp_path, 1, host="other.host"))
    os.utime(dead[-1], (time.time() - 100,) * 2)
    train(ml.callbacks.Checkpoint(tmp_path), epochs=1)
    assert names(tmp_path) == [step(5)]


def test_a_run_on_another_machine_renews_its_lock(tmp_path, monkeypatch):
    put_lock(tmp_path, 1, host="other.host")
    with pytest.raises(RuntimeError, match=r"process 1 on 'other\.host'"):
        train(ml.callbacks.Checkpoint(tmp_path))
    monkeypatch.setattr(folder_lock, "_RENEW", 0.01)
    (tmp_path / "own").mkdir()
    held = Lock(tmp_path / "own")
    os.utime(held.path, (0, 0))
    until = time.monotonic() + 10
    while held.path.stat().st_mtime == 0 and time.monotonic() < until:
        time.sleep(0.01)
    assert held.path.stat().st_mtime > 0
    held.release()
    assert names(tmp_path / "own") == []


def test_the_folder_is_free_once_fit_is_left(tmp_path):
    def second():
        train(ml.callbacks.Checkpoint(tmp_path))

    with pytest.raises(RuntimeError, match=f"process {os.getpid()}"):
        train(ml.callbacks.Checkpoint(tmp_path), AfterBatch(second, at=2))
    assert names(tmp_path) == []

    def interrupt():
        assert len(list(tmp_path.glob(".lock.*"))) == 1
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        train(ml.callbacks.Checkpoint(tmp_path), AfterBatch(interrupt, at=2))
    train(used := ml.callbacks.Checkpoint(tmp_path), epochs=1)
    train(used, epochs=2, resume=tmp_path)
    assert names(tmp_path) == [step(10)]


def test_unfinished_files_of_living_processes_stay(tmp_path):
    living = f".{os.getppid()}.{step(3)}"
    for name in (living, f".{ended_process()}.{step(3)}", f".{os.getpid()}.{step(3)}"):
        (tmp_path / name).write_bytes(b"half")
    (tmp_path / f".{step(2)}").write_bytes(b"half, of an earlier version")
    train(ml.callbacks.Checkpoint(tmp_path), epochs=1)
    assert names(tmp_path) == [living, step(5)]


# What cannot be written -----------------------------------------------------------------------


def full(monkeypatch, times, free=0):
    """Has some writes after `free` others fail in the middle, as on a full disk."""
    replace, calls = os.replace, iter(range(1000))

    def fail(*args):
        if free <= next(calls) < free + times:
            raise OSError(errno.ENOSPC, "No space left on device")
        replace(*args)

    monkeypatch.setattr(os, "replace", fail)


@pytest.mark.parametrize("async_write", [True, False])
def test_a_full_disk_is_an_error_that_says_what_is_left(async_write, tmp_path, monkeypatch):
    full(monkeypatch, 2, free=1)
    with pytest.raises(OSError, match="could not be written") as error:
        train(ml.callbacks.Checkpoint(tmp_path, every=3, async_write=async_write))
    for word in (step(6), "MB free", "No space left", f"{step(3)}'. Make room"):
        assert word in str(error.value)
    assert names(tmp_path) == [step(3)]
    monkeypatch.undo()
    resumed = train(ml.callbacks.Checkpoint(tmp_path, every=3), resume=tmp_path)
    whole = train(ml.callbacks.Checkpoint(tmp_path / "whole", every=3))
    assert all(map(np.array_equal, state(resumed), state(whole)))


def test_one_failure_is_not_noticed(tmp_path, monkeypatch):
    full(monkeypatch, 1)
    train(ml.callbacks.Checkpoint(tmp_path), epochs=1)
    assert names(tmp_path) == [step(5)]


def test_training_goes_on_with_a_warning(tmp_path, monkeypatch):
    full(monkeypatch, 2, free=1)
    with pytest.warns(UserWarning, match=f"{step(6)}.*Training continues without it"):
        train(ml.callbacks.Checkpoint(tmp_path, every=3, on_error="warn"))
    assert names(tmp_path) == [step(10)]


def test_a_folder_that_is_gone_is_made_again(tmp_path):
    folder = tmp_path / "run"

    def remove():
        shutil.rmtree(folder)

    def locked():
        assert len(list(folder.glob(".lock.*"))) == 1

    train(ml.callbacks.Checkpoint(folder, every=3), AfterBatch(remove, 4), AfterBatch(locked, 8))
    assert names(folder) == [step(10)]


def test_a_folder_that_becomes_a_file_is_an_error(tmp_path):
    folder = tmp_path / "run"

    def replace():
        shutil.rmtree(folder)
        folder.write_text("")

    with pytest.raises(OSError, match=r"could not be written.*There is no earlier checkpoint"):
        train(ml.callbacks.Checkpoint(folder, every=3), AfterBatch(replace, 2))


def test_a_folder_is_tried_before_training(tmp_path):
    (tmp_path / "file").write_text("")
    never = AfterBatch(lambda: pytest.fail("trained"))
    with pytest.raises(OSError, match="cannot write to the folder"):
        train(ml.callbacks.Checkpoint(tmp_path / "file" / "run", on_error="warn"), never)


# In a thread ----------------------------------------------------------------------------------


class Held:
    """Has the writing of files wait until it is let go."""

    def __init__(self, monkeypatch):
        self.go, self.written, write = threading.Event(), [], checkpoint_file.write

        def wait(path, *content):
            assert self.go.wait(20)
            write(path, *content)
            self.written.append(path.name)

        monkeypatch.setattr(checkpoint_file, "write", wait)


@pytest.mark.each_backend
@pytest.mark.parametrize("run_eagerly", [True, False])
def test_a_file_holds_the_state_of_its_step_though_training_goes_on(
    run_eagerly, tmp_path, monkeypatch
):
    def run(folder, *callbacks, **given):
        keras.utils.set_random_seed(0)
        model = ml.MLModel(keras.Sequential([keras.layers.Dense(1)]), loss="mse")
        model.compile(keras.optimizers.Adam(0.05), run_eagerly=run_eagerly)
        checkpoint = ml.callbacks.Checkpoint(folder, every=2, keep=None, **given)
        given = {"batch_size": 4, "epochs": 1, "verbose": 0, "callbacks": [*callbacks, checkpoint]}
        model.fit(ROWS, ROWS[:, :1], **given)
        return model

    run(tmp_path / "waits", async_write=False)
    held = Held(monkeypatch)
    seen = AfterBatch(lambda: held.written.append("batch 3") or held.go.set(), at=3)
    model = run(tmp_path / "thread", seen, async_write=True)
    assert held.written == ["batch 3", step(2), step(4), step(5)]
    for batches in (2, 4, 5):
        found = []
        for kind in ("waits", "thread"):
            model.load_weights(tmp_path / kind / step(batches))
            found.append(state(model))
        assert all(map(np.array_equal, *found))


def test_leaving_fit_waits_for_the_file(tmp_path, monkeypatch):
    held = Held(monkeypatch)
    threading.Timer(0.3, held.go.set).start()
    with pytest.raises(Interrupted):
        train(ml.callbacks.Checkpoint(tmp_path, every=2, async_write=True), Interrupt(3))
    assert names(tmp_path) == [step(2)] and held.written == [step(2)]


def test_an_error_of_the_last_file_is_raised_at_the_end(tmp_path, monkeypatch):
    full(monkeypatch, 2, free=1)
    with pytest.raises(OSError, match=f"{step(5)}.*could not be written"):
        train(ml.callbacks.Checkpoint(tmp_path, every=3, async_write=True), epochs=1)
    full(monkeypatch, 2)
    last = ml.callbacks.Checkpoint(tmp_path / "left", every=2, async_write=True)
    with pytest.raises(Interrupted), pytest.warns(UserWarning, match=f"{step(2)}.*continues"):
        train(last, Interrupt(3))


def test_large_files_are_written_in_a_thread_by_default(tmp_path, monkeypatch):
    held, order = Held(monkeypatch), []

    def note():
        order.append(list(held.written))
        held.go.set()

    monkeypatch.setattr("mlsystem.saving.checkpoint_writer._LARGE", 100)
    train(ml.callbacks.Checkpoint(tmp_path / "large"), AfterBatch(note, at=6))
    monkeypatch.undo()
    small = ml.callbacks.Checkpoint(tmp_path / "small")
    train(small, AfterBatch(lambda: order.append(small._writer._pending), at=6))
    assert order == [[], None]


# The best epochs ------------------------------------------------------------------------------


class Values(keras.callbacks.Callback):
    values = (3.0, 1.0, float("nan"), 2.0, 4.0, 1.0)

    def on_epoch_end(self, epoch, logs=None):
        logs["value"] = self.values[epoch]


@pytest.mark.parametrize(("mode", "kept"), [("min", (10, 20)), ("max", (5, 25))])
def test_the_best_epochs_are_kept(mode, kept, tmp_path):
    def run(folder, epochs, **given):
        best = ml.callbacks.Checkpoint(folder, best=("value", mode), keep_best=2)
        train(best, Values(), epochs=epochs, **given)
        return best

    for epochs in (1, 2, 5):
        run(tmp_path, epochs, resume=tmp_path)
    files = [f"best-{batches:010d}.weights.h5" for batches in kept]
    assert names(tmp_path) == [*files, "best.weights.h5", step(25)]
    model = train(ml.callbacks.Checkpoint(tmp_path / "other"), epochs=1)
    best = {"min": 10, "max": 25}[mode]
    for name in (f"best-{best:010d}.weights.h5", "best.weights.h5"):
        model.load_weights(tmp_path / name)
        assert int(model.optimizer.iterations) == best


@pytest.mark.parametrize(
    "given",
    [{"keep_best": 2}, {"keep_best": 0}, {"async_write": "yes"}, {"on_error": "ignore"}],
)
def test_arguments_are_checked(given, tmp_path):
    with pytest.raises(ValueError, match=next(iter(given))):
        ml.callbacks.Checkpoint(tmp_path, **given)

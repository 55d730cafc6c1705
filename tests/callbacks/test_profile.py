"""`Profile` writes a trace of the batches that it is to, by the profiler of the backend."""

import gzip
import re

import keras
import pytest
from interrupted import Interrupt, Interrupted
from keras import callbacks as kc
from toys import TinyGAN, ones
from trained import train

from mlsystem.callbacks import Checkpoint, For, Profile


def size(path):
    """How much there is in a trace."""
    data = path.read_bytes()
    return len(gzip.decompress(data) if path.suffix == ".gz" else data)


def test_a_trace_of_some_batches(tmp_path, capsys):
    profile = Profile(tmp_path / "new" / "traces", start=3, steps=2)
    gan = TinyGAN()
    train(gan, profile, epochs=4, verbose=2)
    assert tmp_path / "new" / "traces" in profile.path.parents and size(profile.path) > 1000
    printed = f"The trace of batches 4 to 5 is in '{profile.path}'. {profile.how}"
    assert printed in capsys.readouterr().out and profile.how.startswith("Open it ")
    # Again, in another fit, and silent.
    first, profile.path = profile.path, None
    train(gan, profile, epochs=4)
    assert profile.path.exists() and first.exists() and capsys.readouterr().out == ""


@pytest.mark.once
def test_nobody_waits_for_the_logs_of_batches(tmp_path, monkeypatch):
    told = []
    listen = kc.CallbackList.on_train_batch_end
    monkeypatch.setattr(
        kc.CallbackList, "on_train_batch_end", lambda *given: told.append(listen(*given))
    )
    train(TinyGAN(), Profile(tmp_path, start=0, steps=1))
    assert told == []


def test_all_batches_of_an_execution_are_in_it(tmp_path, capsys):
    gan = TinyGAN()
    gan.compile(steps_per_execution=2)
    train(gan, Profile(tmp_path, start=1, steps=3), x=ones(32), epochs=1, verbose=2)
    assert "batches 3 to 6 " in capsys.readouterr().out


@pytest.mark.once
def test_training_may_end_before(tmp_path, capsys):
    train(TinyGAN(), Profile(tmp_path, start=5, steps=9), verbose=2)
    assert "batches 6 to 6 " in capsys.readouterr().out
    late = Profile(tmp_path / "late", start=6)
    with pytest.warns(UserWarning, match="starts after 6 batches, and training had 6. There is no"):
        train(TinyGAN(), late)
    assert late.path is None and not (tmp_path / "late").exists()


def test_a_run_that_fails_leaves_no_profiler_behind(tmp_path):
    with pytest.raises(Interrupted):
        train(TinyGAN(), Profile(tmp_path, start=0), Interrupt(2))
    profile = Profile(tmp_path, start=0, steps=1)
    train(TinyGAN(), profile)
    assert profile.path.exists()


@pytest.mark.once
def test_batches_are_counted_in_each_fit_that_goes_on(tmp_path, capsys):
    for epochs in (1, 4):
        profile = Profile(tmp_path / "trace", start=2, steps=1)
        given = {"epochs": epochs, "verbose": 2, "resume": tmp_path / "run"}
        if epochs == 1:
            profile = keras.callbacks.Callback()
        train(TinyGAN(), profile, Checkpoint(tmp_path / "run"), **given)
    assert "batches 3 to 3 " in capsys.readouterr().out


WRONG = {
    "steps=0; give numbers": {"steps": 0},
    "start=-1 and": {"start": -1},
    "start=False and": {"start": False},
    "steps=1.5; give": {"steps": 1.5},
}


@pytest.mark.parametrize("message", WRONG)
@pytest.mark.once
def test_wrong_arguments(message, tmp_path):
    with pytest.raises(ValueError, match=re.escape(message)):
        Profile(tmp_path, **WRONG[message])


@pytest.mark.once
def test_where_it_cannot_be(tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(ValueError, match=r"Profile got '.*file', which is a file"):
        Profile(tmp_path / "file")
    with pytest.raises(TypeError, match="Profile got the folder 3"):
        Profile(3)
    with pytest.raises(ValueError, match="two Profile callbacks"):
        TinyGAN().fit(ones(), verbose=0, callbacks=[Profile(tmp_path), Profile(tmp_path)])
    with pytest.raises(ValueError, match="Profile is for a whole `fit`"):
        For("generator", Profile(tmp_path))
    net = keras.Sequential([keras.layers.Dense(1)])
    net.compile("sgd", "mse")
    with pytest.raises(ValueError, match="needs the `fit` of an MLModel or MLSystem"):
        net.fit(ones(), ones(), verbose=0, callbacks=[Profile(tmp_path)])

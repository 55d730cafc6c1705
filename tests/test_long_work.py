"""Work that takes long is announced, once, and its time is told at the end."""

import re
import threading
import time

import keras
import pytest
from toys import TinyGAN, ones

from mlsystem import _long_work

COMPILERS = {"jax": "jax.jit", "torch": "torch (captured graph)", "tensorflow": "tf.function"}


def test_a_slow_first_step_is_announced(capsys, monkeypatch):
    monkeypatch.setattr(_long_work, "AFTER", 0.0)
    gan = TinyGAN()
    for _ in range(2):
        gan.fit(ones(8), batch_size=4, verbose=2)
    told = [line for line in capsys.readouterr().out.splitlines() if "..." in line]
    assert told[::2] == [
        "Checking 'tiny_gan' on a first batch ...",
        f"Compiling the training step of 'tiny_gan' by {COMPILERS[keras.backend.backend()]} ...",
    ]
    assert all(re.fullmatch(r"\.\.\. took \d+\.\d s\.", line) for line in told[1::2])
    assert len(told) == 4  # the second fit compiles nothing


@pytest.mark.filterwarnings("ignore:.*cannot be captured")
@pytest.mark.parametrize("is_captured", [True, False])
def test_the_evaluation_step_is_announced_as_itself(is_captured, capsys, monkeypatch):
    class Counting(TinyGAN):
        count = 0

        def compute_losses(self, x, y, outputs, training):
            if not is_captured and training and keras.backend.backend() == "torch":
                self.count += 1  # which a graph does not
            return super().compute_losses(x, y, outputs)

    gan = Counting(name="gan")
    gan.fit(ones(), verbose=0)
    monkeypatch.setattr(_long_work, "AFTER", 0.0)
    gan.evaluate(ones(), verbose=2)
    how = COMPILERS[keras.backend.backend()]
    assert f"Compiling the evaluation step of 'gan' by {how} ..." in capsys.readouterr().out


@pytest.mark.once
def test_it_is_silent_where_the_user_asks_for_it(capsys, monkeypatch):
    monkeypatch.setattr(_long_work, "AFTER", 0.0)
    gan = TinyGAN()
    gan.fit(ones(), verbose=0)
    gan.train_on_batch(ones())
    assert capsys.readouterr().out == ""


@pytest.mark.once
def test_short_work_is_silent(capsys):
    assert _long_work.AFTER > 5
    with _long_work.announced("Waiting"):
        pass
    assert capsys.readouterr().out == ""


@pytest.mark.once
def test_the_announcement_comes_while_the_work_lasts(capsys, monkeypatch):
    monkeypatch.setattr(_long_work, "AFTER", 0.001)
    said = ""
    with _long_work.announced("Waiting"):
        while not said:
            said = capsys.readouterr().out
            time.sleep(0.001)
    assert said == "Waiting ...\n"
    assert capsys.readouterr().out.startswith("... took ")


@pytest.mark.once
def test_no_time_is_told_of_work_that_was_not_announced(capsys, monkeypatch):
    class Late(threading.Timer):
        def run(self):
            self.finished.wait()  # until the work has ended

    monkeypatch.setattr(_long_work, "AFTER", 0.0)
    monkeypatch.setattr(threading, "Timer", Late)
    with _long_work.announced("Waiting"):
        pass
    assert capsys.readouterr().out == ""


@pytest.mark.once
def test_work_that_fails(capsys, monkeypatch):
    monkeypatch.setattr(_long_work, "AFTER", 0.0)
    with pytest.raises(ZeroDivisionError), _long_work.announced("Dividing"):
        1 / 0  # noqa: B018
    assert "took" not in capsys.readouterr().out

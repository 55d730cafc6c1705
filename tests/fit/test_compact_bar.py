"""The progress bar of a system with many logs is one line of 100 columns."""

import re
import sys

import keras
import pytest
from keras import ops
from toys import Scale, TinyGAN, ones
from trained import train

import mlsystem as ml
from mlsystem.callbacks import compact_logs
from mlsystem.fit import bar_line


def timeless(text):
    return re.sub(r"\d+(s|ms|us)\b", "T", text)


class Experts(ml.MLSystem):
    def __init__(self, number):
        super().__init__()
        self.experts = [Scale(1.0 + i) for i in range(number)]

    def forward(self, x):
        return [expert(x) for expert in self.experts]

    def compute_losses(self, x, y, outputs):
        return {f"experts/{i}": ops.mean(output) for i, output in enumerate(outputs)}


@pytest.mark.once
def test_a_system_with_more_than_six_logs(capsys, monkeypatch):
    monkeypatch.setenv("COLUMNS", "100")
    logs = train(TinyGAN(), verbose=2, epochs=2)
    lines = capsys.readouterr().out.splitlines()
    names = {"loss": "loss", "generator_loss": "generator", "discriminator_loss": "discriminator"}
    names["val_loss"] = "val_loss"
    shown = [f"{name} {logs[log][0]:.2f}" for log, name in names.items()]
    assert timeless(lines[0]) == "  ".join(["Epoch 1/2", "2/2 T T/step", *shown])
    assert len(lines) == 2 and max(map(len, lines)) <= 100


@pytest.mark.once
def test_a_bar_that_moves(capsys, monkeypatch):
    monkeypatch.setattr(bar_line, "_moves", lambda: True)
    monkeypatch.setattr(bar_line, "_INTERVAL", 0.0)
    monkeypatch.setenv("COLUMNS", "100")
    train(TinyGAN(), verbose="auto", epochs=1)
    start, *drawn = re.sub(r"\x1b\[\d+m", "", capsys.readouterr().out).split("\r")
    assert start == "" and [line.split(" ")[0] for line in drawn] == ["1/2", "2/2", "2/2"]
    assert all("━━━━ " in line for line in drawn[:-1])
    assert all(len(line.rstrip("\n")) <= 99 for line in drawn)
    assert drawn[-1].endswith("\n") and "val_loss" in drawn[-1]


@pytest.mark.once
def test_twenty_models(capsys):
    history = train(Experts(20), verbose=2, epochs=1, validation_data=None)
    [line] = capsys.readouterr().out.splitlines()
    assert re.search(r"loss [\d.]+  experts 0-19: [\d.]+ to [\d.]+ \(worst experts/19\)$", line)
    assert len(line) <= 100 and len(history) == 41  # all numbers: losses, their sum, rates


@pytest.mark.once
def test_an_evaluation(capsys):
    system = Experts(7)
    system.evaluate(ones(8), batch_size=4, verbose=2)
    [line] = capsys.readouterr().out.splitlines()
    spread = "experts 0-6: 1.00 to 7.00 (worst experts/6)"  # seven would take 100 columns
    assert timeless(line) == f"2/2 T T/step  loss 28.0  {spread}"


@pytest.mark.once
def test_few_logs_are_shown_by_keras(capsys):
    gan = TinyGAN()
    gan.discriminator.trainable = False
    gan.evaluate(ones(), verbose=2)
    assert "1/1 - " in capsys.readouterr().out
    model = ml.MLModel(keras.Sequential([keras.layers.Dense(1)]), loss="mse", metrics=["mae"] * 9)
    model.fit(ones(), ones(), verbose=2)
    assert "1/1 - " in capsys.readouterr().out


@pytest.mark.once
def test_a_bar_of_the_user_stays_alone(capsys):
    class Mine(keras.callbacks.ProgbarLogger):
        pass

    train(TinyGAN(), Mine(), verbose=2, epochs=1)
    assert capsys.readouterr().out.count("2/2") == 1


@pytest.mark.filterwarnings("ignore:.*input ran out of data")
@pytest.mark.once
def test_data_of_unknown_length(capsys):
    data = ((ones(),) for _ in range(5))
    TinyGAN().fit(data, epochs=1, verbose=2, shuffle=False)
    assert timeless(capsys.readouterr().out).startswith("5/5 T T/step  loss ")


@pytest.mark.parametrize("width", [20, 40, 60, 99])
@pytest.mark.once
def test_logs_keep_their_width(width):
    for number in (1, 3, 8, 9, 200):
        losses = [f"a_long_name_of_a_model/{i}_loss" for i in range(number)]
        logs = {"loss": 1e-9} | {loss: float("nan") for loss in losses}
        logs |= {f"val_{name}": -1.0 for name in logs}
        assert len(compact_logs.line(logs, losses, width)) <= width


@pytest.mark.once
def test_validation_sets_stay_where_the_losses_get_shorter():
    losses = [f"model_{i}_loss" for i in range(4)]
    logs = {"loss": 4.0} | dict.fromkeys(losses, 1.0)
    logs |= {"val_clean_loss": 5.0, "val_noisy_loss": 6.0}
    sums = "val_clean_loss 5.00  val_noisy_loss 6.00"
    spread = "4 losses: 1.00 to 1.00 (worst model_0)"
    assert compact_logs.line(logs, losses, 95) == f"loss 4.00  {spread}  {sums}"
    assert compact_logs.line(logs, losses, 60) == f"loss 4.00  {sums}"
    assert compact_logs.line(logs, losses, 35) == "loss 4.00  val_clean_loss 5.00"


@pytest.mark.once
def test_a_model_named_like_a_validation_set():
    logs = {"loss": 1.0, "val_net_loss": 1.0, "val_loss": 2.0, "val_val_net_loss": 2.0}
    line = compact_logs.line(logs, ["val_net_loss"], 99)
    assert line == "loss 1.00  val_net 1.00  val_loss 2.00"


@pytest.mark.once
def test_where_a_bar_moves(monkeypatch):
    monkeypatch.delenv("PYCHARM_HOSTED", raising=False)
    monkeypatch.delitem(sys.modules, "ipykernel", raising=False)
    assert not bar_line._moves()
    monkeypatch.setenv("PYCHARM_HOSTED", "1")
    assert bar_line._moves()

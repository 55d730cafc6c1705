"""`Live` shows a run and leaves it as it is."""

import functools
import io
import re
import sys
import types
import warnings

import keras
import numpy as np
import pytest
from interrupted import Interrupt, Interrupted
from keras import layers, ops
from rich.console import Console
from sampled import Sampled, ended, images
from toys import Scale, TinyGAN, approx, number, ones
from trained import train

import mlsystem as ml
from mlsystem.callbacks import Advice, Checkpoint, GradientNorms, Live
from mlsystem.callbacks.live import clock, surfaces
from mlsystem.callbacks.live.rows import Row
from mlsystem.callbacks.live.table import table
from mlsystem.callbacks.live.view import View


class Terminal(io.StringIO):
    """What is written to a terminal."""

    def isatty(self):
        return True

    def screens(self):
        """The text of each drawing, without colors."""
        plain = re.sub(r"\x1b\[[\d;]*m|\x1b\[\?25[lh]", "", self.getvalue())
        return [part for part in re.split(r"\x1b\[2K(?:\x1b\[1A\x1b\[2K)*", plain) if part.strip()]


@pytest.fixture
def terminal(monkeypatch):
    """A terminal of 120 columns. pytest sets `sys.stdout` itself."""
    output = Terminal()
    given = {"file": output, "force_terminal": True, "width": 120, "legacy_windows": False}
    monkeypatch.setattr("rich.console.Console", functools.partial(Console, **given))
    monkeypatch.setattr(surfaces, "in_terminal", lambda: True)
    return output


@pytest.fixture
def always(monkeypatch):
    """The view is updated however long that takes."""
    monkeypatch.setattr(clock, "SHARE", float("inf"))


class Handle:
    """What IPython returns for a display that can be updated."""

    def __init__(self, data):
        self.shown = [data]

    def update(self, data, raw):
        self.shown.append(data)


@pytest.fixture
def notebook(monkeypatch):
    """The displays of a notebook."""
    handles = []

    def display(data, raw, display_id):
        assert raw and display_id
        handles.append(Handle(data))
        return handles[-1]

    ipython, of_display = types.ModuleType("IPython"), types.ModuleType("IPython.display")
    ipython.version_info = (9, 0)  # matplotlib asks for it
    ipython.get_ipython = lambda: types.SimpleNamespace(kernel=object())
    of_display.display = display
    monkeypatch.setitem(sys.modules, "IPython", ipython)
    monkeypatch.setitem(sys.modules, "IPython.display", of_display)
    return handles


@pytest.mark.parametrize("given", [{}, {"validation_every": 3}], ids=str)
@pytest.mark.once
def test_training_is_the_same_to_the_bit(given, tmp_path, terminal, always):
    expected = ended(**given)
    path = tmp_path / "samples.png"
    found = ended(lambda gan: Live(images(gan), every=1e-6, gradients=True, path=path), **given)
    assert found[0] == expected[0]
    assert found[1].keys() == expected[1].keys()
    for name, value in expected[1].items():
        np.testing.assert_array_equal(found[1][name], value, err_msg=name)
    assert path.stat().st_size and "|grad|" in terminal.screens()[-1]


def test_a_table_in_a_terminal(terminal):
    train(TinyGAN(), Live(), epochs=2, verbose="auto")
    first, *_, last = [screen.splitlines() for screen in terminal.screens()]
    assert first[0].strip() == "tiny_gan  epoch 1/2  batch 0/2"
    assert last[0].startswith("  tiny_gan  epoch 2/2  batch 2/2") and "took 00:0" in last[0]
    columns = ["model", "loss", "val", "trend", "rate", "steps", "skipped"]
    assert last[1].split() == columns
    rows = [line.split() for line in last[2:5]]
    assert [row[0] for row in rows] == ["generator", "discriminator", "discriminator"]
    assert [row[4:] for row in rows[:2]] == [["0.100", "4", "0"], ["0.0100", "4", "0"]]
    assert rows[2][1::2] == ["fake", "real"]
    assert "━" not in terminal.getvalue()  # there is no bar of Keras beside it
    assert "\x1b[?25h" in terminal.getvalue()  # the cursor is back


def test_a_model_alone(terminal, always):
    model = ml.MLModel(keras.Sequential([layers.Dense(1)]), loss="mse", metrics=["mae"])
    model.fit(ones(8), ones(8), 4, callbacks=[Live(every=1e-6, gradients=True)], epochs=2)
    heading, columns, row, more = terminal.screens()[-1].splitlines()[:4]
    assert "epoch 2/2" in heading and "|grad|" in columns and "update" in columns
    name, loss, *_ = row.split()
    assert name == model.name and float(loss) > 0 and more.split()[:2] == [name, "mae"]


@pytest.mark.once
def test_the_loss_is_that_of_the_batches_since_the_last_update(terminal, always):
    seen = []

    class Look(keras.callbacks.Callback):
        def on_train_end(self, logs=None):
            curves = live._run.readings.curves
            seen.extend(value for _, value in curves["generator_loss"])

    live = Live(every=1e-6)
    train(TinyGAN(), live, Look(), epochs=2, validation_data=None)
    g, d, expected = 2.0, 3.0, []
    for _ in range(4):
        expected.append(-g * d)
        g, d = g + 0.1 * d, d - 0.01 * (g - 1)
    assert seen == approx(expected)


def test_measured_gradients_and_updates(terminal, always):
    found = {}

    class Look(keras.callbacks.Callback):
        def on_train_end(self, logs=None):
            found.update(live._run.readings.latest)

    live = Live(every=1e-6, gradients=True)
    train(TinyGAN(), live, GradientNorms(1), Look(), x=ones(4), epochs=1, validation_data=None)
    # dL/dg = -d, dL/dd = g - 1; the rates are 0.1 and 0.01
    assert found["generator_gradient_norm"] == approx(3.0)
    assert found["discriminator_gradient_norm"] == approx(1.0)
    assert found["generator_update_ratio"] == approx(0.1 * 3.0 / 2.0)
    assert found["discriminator_update_ratio"] == approx(0.01 * 1.0 / 3.0)


@pytest.mark.once
def test_what_others_measure_is_shown(terminal):
    train(TinyGAN(), Live(), GradientNorms(every=1), epochs=1)
    after_a_batch = terminal.screens()[1].splitlines()
    assert "|grad|" in after_a_batch[1] and "update" in after_a_batch[1]
    assert "3.00" in after_a_batch[2].split() and "0.150" in after_a_batch[2].split()


@pytest.mark.once
@pytest.mark.filterwarnings("ignore:None of the losses that 'generator' follows")
def test_advice_stands_below_the_table(terminal):
    class Cut(TinyGAN):
        def forward(self, x, training=None):
            made = ops.stop_gradient(self.generator(x))
            return {"real": self.discriminator(x), "fake": self.discriminator(made)}

    advice = Advice(every=1, looks=1, warn=False)
    train(Cut(), advice, Live(), epochs=2)
    [sentence, *_] = advice.sentences()
    assert f"! {sentence}" in " ".join(terminal.screens()[-1].split())


@pytest.mark.once
def test_a_narrow_terminal_shows_whole_numbers():
    rows = [Row("discriminator", value=0.048, gradient=1.07, ratio=2.2e-3, rate=1e-3, steps=9)]
    texts = {}
    for width in (100, 60, 35):
        console = Console(file=io.StringIO(), width=width)
        console.print(table(View(["gan"], rows), console))
        texts[width] = console.file.getvalue()
        assert all(len(line) <= width for line in texts[width].splitlines())
    assert "skipped" in texts[100] and "skipped" not in texts[60]
    assert texts[35].splitlines()[2].split() == ["discriminator", "0.0480", "1.07"]


@pytest.mark.once
def test_samples_that_are_no_images(terminal, tmp_path):
    live = Live(lambda: np.zeros((4, 784)), path=tmp_path / "samples.png")
    with pytest.raises(ValueError, match=r"Live\(samples=...\) got an array of shape \(4, 784\)"):
        train(TinyGAN(), live, epochs=1)


@pytest.mark.once
def test_samples_that_change_their_number_end_the_strip(terminal, tmp_path):
    numbers = iter([2, 2, 3])
    live = Live(lambda: np.zeros((next(numbers), 4, 4)), every=1e9, path=tmp_path / "samples.png")
    with pytest.warns(UserWarning, match="returned 3 images of 4 x 4 pixels, and 2 images of 4"):
        history = train(TinyGAN(), live, epochs=2)
    assert len(history["loss"]) == 2 and (tmp_path / "samples.png").exists()


@pytest.mark.once
def test_a_line_an_epoch_on_a_pipe(capsys):
    train(TinyGAN(), Live(), epochs=2, verbose=1, validation_data={"a": (ones(),)})
    lines = capsys.readouterr().out.splitlines()
    assert len(lines) == 2 and lines[1].startswith("epoch 2/2  2 batches  0.")
    words = re.sub(r"-?[\d.]+( s)?", "", lines[1].partition(" s ")[2]).split()
    assert words == ["loss", "generator", "discriminator", "val_a_loss"]
    assert max(map(len, lines)) <= 100


def test_a_figure_in_a_notebook(notebook, always):
    gan = Sampled()
    train(gan, Live(images(gan), every=1e-6), epochs=2)
    figure, table = notebook
    sizes = {size(data["image/png"]) for data in figure.shown}
    assert len(figure.shown) == len(table.shown) == 6  # the first, each batch, the last
    assert len(sizes) == 1 and figure.shown[0] != figure.shown[-1]
    assert "generator" in table.shown[-1]["text/plain"]
    assert re.search("<span style=.*>discriminator", table.shown[-1]["text/html"])


def size(png):
    return png[16:24]  # the width and height in the header of a PNG file


@pytest.mark.once
def test_a_notebook_without_matplotlib(notebook, monkeypatch):
    monkeypatch.setattr(surfaces.importlib.util, "find_spec", lambda name: None)
    train(TinyGAN(), Live(), epochs=1)
    assert [list(handle.shown[0]) for handle in notebook] == [["text/html", "text/plain"]]
    with pytest.raises(ValueError, match=r"Live\(samples=...\) draws with matplotlib, which is"):
        Live(lambda: None)


@pytest.mark.once
def test_short_epochs_are_shown_seldom(terminal):
    train(TinyGAN(), Live(every=1000), epochs=5)
    # at the start, after the first batch, at the end, and when rich stops
    assert len(terminal.screens()) == 4
    last = terminal.screens()[-1]
    assert "epoch 5/5" in last and len(re.search(r"generator.*", last)[0].split()[3]) == 5


def test_a_run_that_fails_leaves_the_terminal_as_it_was(terminal):
    output = sys.stdout
    with pytest.raises(Interrupted):
        train(TinyGAN(), Live(), Interrupt(2))
    assert sys.stdout is output and terminal.getvalue().count("\x1b[?25h") == 1
    train(TinyGAN(), Live(), epochs=1)


@pytest.mark.once
def test_it_goes_on_with_a_resumed_run(tmp_path, terminal):
    for epochs in (1, 3):
        live, system = Live(), TinyGAN()
        train(system, live, Checkpoint(tmp_path), epochs=epochs, resume=tmp_path)
    assert "epoch 2/3  batch 0/2" in terminal.getvalue()
    assert [line.split()[5] for line in terminal.screens()[-1].splitlines()[2:4]] == ["6", "6"]


@pytest.mark.once
def test_a_fast_run_writes_no_samples(tmp_path, terminal):
    gan, path = Sampled(), tmp_path / "samples.png"
    train(gan, Live(images(gan), path=path), fast_run=True)
    assert not path.exists() and "epoch 1/1  batch 1/1" in terminal.getvalue()


@pytest.mark.once
def test_what_others_print_stays_above(terminal):
    tell = keras.callbacks.LambdaCallback(on_epoch_end=lambda epoch, logs: print(f"told {epoch}"))
    train(TinyGAN(), Live(), tell, epochs=2)
    assert terminal.getvalue().count("told") == 2


@pytest.mark.once
def test_samples_need_a_file_outside_of_a_notebook(terminal):
    with pytest.warns(UserWarning, match=r"samples in notebooks only. Give the file"):
        train(TinyGAN(), Live(lambda: 1 / 0), epochs=1)


class Prefixed(ml.MLSystem):
    """A model whose name starts as the log of a validation set, with a metric and two terms."""

    def __init__(self):
        super().__init__()
        self.val_net, self.net = Scale(1.0), Scale(2.0)

    def forward(self, x):
        self.log("val_net_size", ops.mean(x))
        return {"val_net": self.val_net(x), "net": self.net(x)}

    def compute_losses(self, x, y, outputs):
        found = {name: ops.mean(output) for name, output in outputs.items()}
        return found | {"val_net": {"one": found["val_net"], "two": found["net"]}}


@pytest.mark.once
def test_a_model_named_like_a_validation_set(terminal):
    train(Prefixed(), Live(), epochs=1)
    rows = [line.split() for line in terminal.screens()[-1].splitlines()[2:5]]
    assert [row[0] for row in rows] == ["val_net", "net", "val_net"]
    assert rows[2][1::2] == ["size", "one", "two"]


@pytest.mark.once
def test_frozen_models_and_losses_of_no_model(terminal):
    class Cycle(TinyGAN):
        def compute_losses(self, x, y, outputs):
            losses = super().compute_losses(x, y, outputs)
            return losses | {"cycle": ops.mean(outputs["real"]) ** 2}

    gan = Cycle()
    gan.discriminator.trainable = False
    train(gan, Live(), epochs=1)
    rows = [line.split() for line in terminal.screens()[-1].splitlines()[2:5]]
    assert [row[0] for row in rows] == ["generator", "discriminator", "cycle"]
    assert "frozen" in rows[1] and number(gan.discriminator.weight) == 3.0


WRONG = {
    "samples=3": {"samples": 3},
    "every=0": {"every": 0},
    "every=True": {"every": True},
    "path='a.png'": {"path": "a.png"},
    "path='a.foo', which matplotlib cannot": {"samples": list, "path": "a.foo"},
    "path='nodir/a.png', and there is no folder 'nodir'": {"samples": list, "path": "nodir/a.png"},
}


@pytest.mark.parametrize("message", WRONG)
@pytest.mark.once
def test_wrong_arguments(message):
    with pytest.raises(ValueError, match=f"Live got {re.escape(message)}"):
        Live(**WRONG[message])


@pytest.mark.once
def test_where_it_cannot_be():
    with pytest.raises(ValueError, match="Live is for the `fit` of a whole MLModel"):
        train(TinyGAN(), ml.callbacks.For("generator", Live()))
    net = keras.Sequential([layers.Dense(1)])
    net.compile("sgd", "mse")
    with pytest.raises(ValueError, match="Live is for the `fit` of a whole MLModel"):
        net.fit(ones(), ones(), verbose=0, callbacks=[Live()])
    with warnings.catch_warnings():
        TinyGAN().evaluate(ones(), verbose=0, callbacks=[Live()])  # it shows training only


@pytest.mark.parametrize(("index", "surface"), [(0, surfaces.Pipe), (1, surfaces.Silent)])
@pytest.mark.once
def test_the_first_of_several_processes_prints_a_line(index, surface, monkeypatch, terminal):
    replicas = types.SimpleNamespace(count=2, index=index)
    monkeypatch.setattr(surfaces.engine, "replicas", replicas)
    found = surfaces.choose()
    assert type(found) is surface and not found.is_timed
    assert Live(lambda: 1 / 0)._film(lambda: 1 / 0) is None


@pytest.mark.once
@pytest.mark.parametrize("given", [{"verbose": 0}, {"verbose": 1, "validation_every": 1}], ids=str)
def test_a_metric_of_several_numbers(given, terminal):
    model, y = ml.MLModel(keras.Sequential([layers.Dense(3, "softmax")])), np.eye(3, dtype="f")
    model.compile("sgd", loss="mse", run_eagerly=True, metrics=[keras.metrics.F1Score()])
    history = model.fit(y, y, callbacks=[Live()], validation_data=(y, y), **given).history
    assert history["val_f1_score"][0].shape == (3,)

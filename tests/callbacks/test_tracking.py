"""`Log` writes what a run logs, and leaves training as it is."""

import concurrent.futures
import contextlib
import copy
import importlib.util
import io

import keras
import numpy as np
import pytest
from event_files import events
from interrupted import Interrupt, Interrupted
from PIL import Image
from sampled import ended, images
from toys import TinyGAN, ones
from trained import after, approx, train, weights

import mlsystem as ml
from mlsystem.callbacks import Checkpoint, GradientNorms, Log
from mlsystem.callbacks.tracking import tensorboard
from mlsystem.callbacks.tracking.samples import grid
from mlsystem.callbacks.tracking.targets import TARGETS


class Logger:
    """An object with `log(values, step)`, which fails at some points."""

    def __init__(self, fails=()):
        self.points, self.fails = [], list(fails)

    def log(self, values, step):
        if self.fails and self.fails.pop(0):
            raise ConnectionError("The server has gone away.")
        self.points.append((step, values))

    def series(self, name):
        return [(step, values[name]) for step, values in self.points if name in values]


def eager(system=None):
    """A system that is not compiled, where only the host decides."""
    system = system or TinyGAN()
    system.compile(run_eagerly=True)
    return system


def losses(first, last):
    """The mean loss of the generator over some batches: see `TinyGAN`."""
    return np.mean([-np.prod(after(batch)) for batch in range(first, last)])


@pytest.mark.once
def test_training_is_the_same_to_the_bit(tmp_path):
    expected = ended(epochs=2)
    folder = tmp_path / "gan"
    found = ended(lambda gan: Log("tensorboard", folder, 1, images(gan), gradients=True), epochs=2)
    assert found[0] == expected[0]
    assert found[1].keys() == expected[1].keys()
    for name, value in expected[1].items():
        np.testing.assert_array_equal(found[1][name], value, err_msg=name)
    scalars, others, _ = events(folder)
    assert list(scalars["generator/gradient_norm"]) == list(range(1, 9))
    assert [step for step, _ in others["samples"]] == [0, 4, 8]


def test_a_point_every_few_batches_waits_for_none():
    logger, seen = Logger(), []
    log = Log(logger, every=2)
    log.target.logger = Hears(logger, lambda: seen.append(log.kept["batches"]))
    train(TinyGAN(), log, x=ones(20), epochs=2)  # 5 batches an epoch
    assert logger.series("generator/loss") == [
        (2, approx(losses(0, 2))),
        (4, approx(losses(2, 4))),
        (6, approx(losses(5, 6))),  # the means of an epoch start from zero
        (8, approx(losses(6, 8))),
        (10, approx(losses(8, 10))),
    ]
    # Each is written at the next point, when it has long been computed, or after the epoch.
    assert seen[:2] == [4, 5]
    assert [step for step, _ in logger.series("generator/val_loss")] == [5, 10]
    assert logger.series("discriminator/val_loss")[-1][1] == approx(
        (after(10)[0] - 1) * after(10)[1]
    )
    assert logger.series("generator/learning_rate")[0] == (2, approx(0.1))


class Hears:
    """A logger that calls a function at each point."""

    def __init__(self, logger, act):
        self.logger, self.act = logger, act

    def log(self, values, step):
        self.act()
        self.logger.log(values, step)


@pytest.mark.once
def test_the_logs_of_each_epoch_and_the_best():
    logger = Logger()
    history = train(eager(), Log(logger), GradientNorms(every=1))
    assert [step for step, _ in logger.points] == [2, 4, 6, 6]
    for name, log in (
        ("loss", "loss"),
        ("val_loss", "val_loss"),
        ("discriminator/real", "discriminator_real"),
        ("discriminator/val_fake", "val_discriminator_fake"),
        ("generator/gradient_norm_discriminator", "generator_gradient_norm_discriminator"),
    ):
        assert [value for _, value in logger.series(name)] == history[log], name
    [(step, best)] = logger.series("best/generator/val_loss")
    assert (step, best) == (6, min(history["val_generator_loss"]))
    assert "best/generator/learning_rate" not in logger.points[-1][1]


@pytest.mark.once
def test_validation_sets_and_validation_every():
    logger, sets = Logger(), {"clean": (ones(),), "far": (3 * ones(),)}
    gan = eager()
    train(gan, Log(logger), epochs=2, validation_data=sets, validation_every=1)
    assert [step for step, _ in logger.series("generator/val_far_loss")] == [1, 2, 3, 4]
    expected = gan.history.validations["val_far_generator_loss"]
    assert [value for _, value in logger.series("generator/val_far_loss")] == expected
    assert [step for step, _ in logger.series("generator/loss")] == [2, 4]


@pytest.mark.once
def test_each_validation_is_written_once_at_its_batch(tmp_path):
    """Also those before a checkpoint, and those of a second `fit` with the same callback."""
    logger, given = Logger(), {"validation_every": 1, "epochs": 3}
    log = Log(logger)
    with pytest.raises(Interrupted):  # in the second epoch of 2 batches, after its first
        train(eager(), Log(logger), Checkpoint(tmp_path, every=3), Interrupt(4), **given)
    assert [step for step, _ in logger.series("generator/val_loss")] == [1, 2]
    train(eager(), log, Checkpoint(tmp_path, every=3), **given, resume=tmp_path)
    train(eager(), log, **given)
    steps = [step for step, _ in logger.series("generator/val_loss")]
    assert steps == list(range(1, 13))
    assert set(steps[1::2]) == {step for step, _ in logger.series("generator/loss")}


@pytest.mark.once
def test_a_metric_of_several_numbers_is_left_out():
    logger, y = Logger(), np.eye(3, dtype="float32")
    model = ml.MLModel(keras.Sequential([keras.layers.Dense(3, "softmax")]))
    model.compile("sgd", loss="mse", run_eagerly=True, metrics=[keras.metrics.F1Score()])
    for every in (None, 1):
        train(model, Log(logger, every=every), x=y, y=y, epochs=1, validation_data=(y, y))
    assert len(logger.series("loss")) == len(logger.series("val_loss")) == 2
    assert not any("f1_score" in name for _, values in logger.points for name in values)


@pytest.mark.once
def test_no_picture_is_drawn_for_a_logger_of_numbers(monkeypatch):
    drawn = []
    monkeypatch.setattr("mlsystem.callbacks.tracking.run.picture_of", drawn.append)
    train(eager(), Log(Logger()), epochs=1)
    assert drawn == []


@pytest.mark.once
def test_a_model_alone_has_the_names_of_keras():
    logger = Logger()
    model = ml.MLModel(keras.Sequential([keras.layers.Dense(1)]), loss="mse", metrics=["mae"])
    model.compile(keras.optimizers.SGD(0.1), loss="mse", run_eagerly=True, metrics=["accuracy"])
    given = {"y": ones(8), "validation_data": (ones(), ones())}
    train(model, Log(logger, gradients=True), epochs=1, **given)
    names = {"loss", "accuracy", "learning_rate", "gradient_norm", "update_ratio"}
    assert logger.points[0][1].keys() == names | {"val_loss", "val_accuracy"}
    assert logger.points[1][1].keys() >= {"best/val_loss", "best/accuracy"}


class Named(TinyGAN):
    def __init__(self, latent=3, note="try"):
        super().__init__()


@pytest.mark.once
def test_the_files_of_tensorboard(tmp_path):
    folder = tmp_path / "runs" / "gan"
    history = train(
        eager(Named(note="other")), Log("tensorboard", folder, samples=lambda: np.eye(2)[None])
    )
    scalars, others, purges = events(folder)
    assert scalars["generator/val_loss"].keys() == {2, 4, 6} and not purges
    [(step, table)] = others["best/text_summary"]
    best = min(history["generator_loss"])
    assert step == 6 and f"| generator/loss | {best} |" in table.tensor.string_val[0].decode()
    [(_, layout)] = others["custom_scalars__config__"]
    text = layout.tensor.string_val[0]
    assert b"^generator/loss$" in text and b"^generator/val_loss$" in text
    [(_, table)] = others["configuration/text_summary"]
    lines = table.tensor.string_val[0].decode().splitlines()
    assert {"| model | Named |", "| epochs | 3 |", "| batch_size | 4 |", "| routing | own |"} < {
        *lines
    }
    assert "| arguments/note | other |" in lines
    assert "| discriminator/optimizer | SGD |" in lines
    assert f"| versions/keras | {keras.__version__} |" in lines
    pixels = [
        np.asarray(Image.open(io.BytesIO(v.image.encoded_image_string))) for v in drawn(others)
    ]
    assert pixels[0].shape == (3, 3, 3) and pixels[0][0, 0, 0] == 255 and pixels[0][1, 0, 0] == 0
    assert pixels[-1].shape[1] > 300  # the picture of the system


def drawn(others):
    return [value for name in ("samples", "picture") for _, value in others[name]]


@pytest.mark.once
def test_tensorboard_shows_what_was_written(tmp_path):
    accumulator = pytest.importorskip("tensorboard.backend.event_processing.event_accumulator")
    folder = tmp_path / "gan"
    resumed(lambda: Log("tensorboard", folder, every=1), tmp_path / "steps")
    found = accumulator.EventAccumulator(str(folder)).Reload()
    assert [event.step for event in found.Scalars("generator/loss")] == list(range(1, 9))
    values = [event.value for event in found.Scalars("generator/loss")]
    assert values == approx([losses(batch, batch + 1) for batch in range(8)])


def resumed(log, folder, made=eager):
    """Trains 4 epochs of 2 batches, is interrupted after the 5th batch, and resumes at the 4th."""
    with pytest.raises(Interrupted):
        train(made(), log(), Checkpoint(folder, every=2), Interrupt(5), epochs=4)
    gan = made()
    train(gan, log(), Checkpoint(folder, every=2), epochs=4, resume=folder)
    assert weights(gan) == approx(after(8))


def test_a_resumed_run_continues_in_the_same_run(tmp_path):
    logger = Logger()
    logs = [Log(logger, every=1), Log(logger, every=1)]
    resumed(iter(logs).__next__, tmp_path, made=TinyGAN)
    assert [step for step, _ in logger.series("generator/loss")] == [*range(1, 5), *range(5, 9)]
    [(_, best)] = logger.series("best/generator/loss")
    assert best == approx(losses(6, 8))


@pytest.mark.once
def test_an_epoch_that_is_resumed_in_its_middle(tmp_path):
    logger, given = Logger(), {"x": ones(16), "epochs": 1, "resume": tmp_path}
    for more in ([Interrupt(4)], []):
        with contextlib.suppress(Interrupted):
            train(eager(), Log(logger, every=2), Checkpoint(tmp_path, every=3), *more, **given)
    # The third batch is in the checkpoint, so that the second point has the fourth alone.
    expected = [(2, approx(losses(0, 2))), (4, approx(losses(3, 4)))]
    assert logger.series("generator/loss") == expected


@pytest.mark.once
def test_a_resumed_run_has_the_same_folder(tmp_path):
    folder = tmp_path / "gan"
    resumed(lambda: Log("tensorboard", folder), tmp_path / "steps")
    scalars, others, purges = events(folder)
    assert [path.name for path in tmp_path.glob("gan*")] == ["gan"]
    assert purges == [5] and list(scalars["loss"]) == [2, 4, 6, 8]
    assert len(others["configuration/text_summary"]) == 1
    train(eager(), Log("tensorboard", folder), epochs=1)  # another run
    assert list(events(tmp_path / "gan-2")[0]["loss"]) == [2]


@pytest.mark.once
def test_it_begins_in_the_middle_of_a_run_that_resumes(tmp_path):
    logger = Logger()
    train(eager(), Checkpoint(tmp_path), epochs=2)
    train(eager(), Log(logger), Checkpoint(tmp_path), epochs=3, resume=tmp_path)
    assert [step for step, _ in logger.series("loss")] == [6]


@pytest.mark.once
def test_a_copy_is_a_run_of_its_own(tmp_path):
    log, logger = Log("tensorboard", tmp_path / "gan"), Logger()
    for callback in (copy.deepcopy(log), copy.deepcopy(log)):  # as KerasTuner does
        train(eager(), callback, epochs=1)
        train(eager(), callback, epochs=1)  # the same run goes on
    for name in ("gan", "gan-2"):
        assert list(events(tmp_path / name)[0]["loss"]) == [2, 4]
    train(eager(), copy.deepcopy(Log(logger)), epochs=1)
    assert logger.series("loss")


@pytest.mark.once
def test_a_failure_is_one_warning(monkeypatch):
    logger = Logger(fails=[1, 1, 0])
    monkeypatch.setattr("mlsystem.callbacks.tracking.run._PAUSE", 0.0)
    gan = eager()
    with pytest.warns(
        UserWarning, match="write to Logger: .*gone away. Training continues"
    ) as found:
        train(gan, Log(logger), epochs=4)
    assert ["Log cannot" in str(warning.message) for warning in found].count(True) == 1
    assert weights(gan) == approx(after(8))
    assert [step for step, _ in logger.series("loss")] == [6, 8]
    monkeypatch.undo()
    logger = Logger(fails=[1])
    with pytest.warns(UserWarning, match="tries again after a minute"):
        train(eager(), Log(logger), epochs=4)
    assert logger.points == []


@pytest.mark.once
def test_a_tracker_that_cannot_be_opened(tmp_path):
    (tmp_path / "file").touch()
    gan = eager()
    with pytest.raises(RuntimeError, match=r"cannot open a run in TensorBoard: NotADirectoryError"):
        train(gan, Log("tensorboard", tmp_path / "file" / "gan"))
    assert weights(gan) == [2.0, 3.0]


@pytest.mark.once
def test_what_is_refused(monkeypatch, tmp_path):
    for given, text in (
        (("tensorbord",), "Did you mean 'tensorboard'"),
        (("csv",), "It knows 'tensorboard', 'wandb'"),
        ((object(),), r"an object with a method log\(values, step\)"),
        ((Logger,), r"an object with a method log\(values, step\)"),
        ((Logger(), "runs"), "Leave it out"),
        (("tensorboard", "runs", 0), "every=0; give a number of batches from 1"),
        (("tensorboard", "runs", None, 3), "samples=3. Give a function"),
        (("tensorboard", __file__), "is a file; give a folder"),
        (("tensorboard", ""), "got '' as its folder; give its path"),
        ((Logger(), None, None, None, "yes"), "gradients='yes'; give True or False"),
        ((Logger(), None, None, lambda noise: noise), "function without arguments"),
    ):
        with pytest.raises(ValueError, match=text):
            Log(*given)
    with pytest.raises(TypeError, match="place=3; give a name"):
        TARGETS["trackio"](3)
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None)
    for name, target in TARGETS.items():
        with pytest.raises(ImportError, match=f"pip install {target.package}`"):
            Log(name)
    with pytest.raises(ValueError, match="pip install pillow"):
        Log(Logger(), samples=lambda: None)
    with pytest.raises(ValueError, match="Give it there, without For"):
        train(eager(), ml.callbacks.For("generator", Log(Logger())))


@pytest.mark.once
def test_a_function_with_other_arguments():
    class Other:
        def log(self, values):
            """Lacks the step."""

    with pytest.raises(ValueError, match=r"Log calls log\(values, step\) of Other"):
        Log(Other())


@pytest.mark.once
def test_a_fast_run_is_not_logged():
    logger = Logger()
    train(eager(), Log(logger), fast_run=True)
    assert logger.points == []


@pytest.mark.once
def test_the_grid_of_samples():
    found = grid(lambda: np.arange(12).reshape(3, 2, 2) / 12)
    assert found.shape == (6, 6, 3) and found.dtype == "uint8"
    assert found[0, 0, 0] == 0 and found[3, 0, 0] == round(8 / 12 * 255)
    assert (found[3:, 3:] == 255).all()  # no fourth image
    with pytest.raises(ValueError, match=r"Log\(samples=...\) got an array of shape \(3,\)"):
        grid(lambda: np.zeros(3))
    with pytest.raises(ValueError, match="got no images"):
        grid(lambda: np.zeros((0, 2, 2)))


@pytest.mark.once
def test_samples_that_fail_do_so_before_training():
    model = eager()
    with pytest.raises(ValueError, match="got no images"):
        train(model, Log(Logger(), samples=lambda: np.zeros((0, 2, 2))))
    assert weights(model) == [2.0, 3.0]


def fails():
    raise OSError("no images today")


@pytest.mark.once
def test_samples_that_fail_leave_no_folder(tmp_path):
    with pytest.raises(OSError, match="no images today"):
        train(eager(), Log("tensorboard", tmp_path / "runs", samples=fails))
    assert not list(tmp_path.iterdir())


@pytest.mark.once
def test_runs_that_start_at_once_take_different_folders(tmp_path):
    with concurrent.futures.ThreadPoolExecutor(8) as pool:
        taken = list(pool.map(tensorboard._taken, [tmp_path / "runs"] * 8))
    assert sorted(taken) == list(range(1, 9))

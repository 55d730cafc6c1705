"""The plots: what they draw, from which numbers, with which labels."""

import ast
import re
import sys
from pathlib import Path

import keras
import numpy as np
import pytest
from keras import layers, ops
from toys import Pair, Scale, TinyGAN, ones

import mlsystem as ml
from mlsystem.diagnostics.gradient_report import GradientReport
from mlsystem.plot import colors, figures

pytestmark = pytest.mark.once
PALETTE = list(colors.PALETTE)


def trained(**given):
    given = {"x": ones(16), "batch_size": 4, "epochs": 3, "verbose": 0} | given
    return TinyGAN().fit(**given)


def curves(axes):
    """The y values of the lines of a panel, by style and label."""
    return [(line.get_linestyle(), line.get_label(), list(line.get_ydata())) for line in axes.lines]


def legends(figure):
    return [text.get_text() for legend in figure.legends for text in legend.get_texts()]


# Curves -------------------------------------------------------------------------------------


def test_one_panel_a_model_with_training_terms_and_each_validation_set():
    sets = {"clean": (ones(),), "noisy": (2 * ones(),)}
    history = trained(validation_data=sets)
    figure = ml.plot.history(history)
    logs = history.history
    titles = [axes.get_title() for axes in figure.axes]
    assert titles == ["system", "generator", "discriminator"]
    colored = [colors.NEUTRAL, *PALETTE[:2]]
    drawn = ("loss", "generator_loss", "discriminator_loss")
    for axes, log, color in zip(figure.axes, drawn, colored, strict=True):
        styles = {style: y for style, label, y in curves(axes) if label.startswith("_")}
        assert styles["-"] == logs[log]
        assert [styles["--"], styles[":"]] == [logs[f"val_clean_{log}"], logs[f"val_noisy_{log}"]]
        assert {line.get_color() for line in axes.lines if line.get_label()[0] == "_"} == {color}
        assert axes.get_xlabel() == "epoch" and list(axes.lines[0].get_xdata()) == [1, 2, 3]
    assert figure.axes[0].get_ylabel() == "loss"
    terms = {label: y for _, label, y in curves(figure.axes[2]) if not label.startswith("_")}
    assert terms == {name: logs[f"discriminator_{name}"] for name in ("fake", "real")}
    assert legends(figure) == ["training", "validation: clean", "validation: noisy"]


class Prefixed(ml.MLSystem):
    """A model whose name starts as the log of a validation set."""

    def __init__(self):
        super().__init__()
        self.val_net, self.other = Scale(1.0), Scale(2.0)

    def forward(self, x):
        return {"val_net": self.val_net(x), "other": self.other(x)}

    def compute_losses(self, x, y, outputs):
        return {name: ops.mean(output) for name, output in outputs.items()}


@pytest.mark.parametrize("name", ["", "clean"])
def test_a_model_named_like_a_validation_set(name):
    sets = {name: (ones(),)} if name else (ones(),)
    history = Prefixed().fit(ones(8), epochs=2, verbose=0, validation_data=sets)
    logs, figure = history.history, ml.plot.history(history)
    assert [axes.get_title() for axes in figure.axes] == ["system", "val_net", "other"]
    front = f"val_{name}_" if name else "val_"
    for axes, log in zip(figure.axes, ("loss", "val_net_loss", "other_loss"), strict=True):
        assert [y for *_, y in curves(axes)] == [logs[log], logs[front + log]]
    assert legends(figure) == ["training", f"validation: {name}" if name else "validation"]


def test_legends_lie_outside_the_panels():
    figure = ml.plot.history(trained(validation_data=(ones(),)))
    figure.draw_without_rendering()
    boxes = [axes.get_window_extent() for axes in figure.axes]
    drawn = [*figure.legends, figure.axes[2].get_legend()]
    extents = [legend.get_window_extent() for legend in drawn]
    assert not any(extent.overlaps(box) for extent in extents for box in boxes)


def test_validations_in_the_middle_of_epochs_are_drawn_by_batch():
    history = trained(validation_data=(ones(),), validation_every=3)
    [_, generator, _] = ml.plot.history(history).axes
    line, measured = generator.lines
    assert list(line.get_xdata()) == [4, 8, 12] and generator.get_xlabel() == "batch"
    assert list(measured.get_xdata()) == [3, 6, 9, 12]
    assert list(measured.get_ydata()) == history.validations["val_generator_loss"]


def test_fewer_validations_than_epochs_are_spread_over_them():
    history = trained(validation_data=(ones(),), validation_freq=2, epochs=4)
    _, measured = ml.plot.history(history).axes[1].lines
    assert list(measured.get_xdata()) == [2, 4]


def test_a_dict_is_drawn_too_and_a_metric_can_be_chosen():
    logs = {"loss": [2, 1], "b_loss": [1, 1], "a_loss": [1, 0], "a_accuracy": [0.5, 0.75]}
    logs |= {"val_a_accuracy": [0.25, 0.5], "b_learning_rate": [1, 1]}
    figure = ml.plot.history(logs)
    assert [axes.get_title() for axes in figure.axes] == ["system", "b", "a"]
    assert [a.lines[0].get_color() for a in figure.axes] == [colors.NEUTRAL, *PALETTE[:2]]
    [axes] = ml.plot.history(logs, "accuracy").axes
    assert [y for *_, y in curves(axes)] == [[0.5, 0.75], [0.25, 0.5]]
    assert axes.get_ylabel() == "accuracy" and axes.get_title() == "a"


def test_a_model_alone_has_one_panel():
    model = ml.MLModel(layers.Dense(1), loss="mse")
    history = model.fit(ones(), ones(), verbose=0)
    figure = ml.plot.history(history)
    [line] = figure.axes[0].lines
    assert line.get_marker() == "o" and line.get_color() == PALETTE[0]  # one epoch, still seen
    assert not figure.legends


def test_the_only_loss_of_a_system_is_drawn_once():
    figure = ml.plot.history({"loss": [2.0, 1.0], "byol_loss": [2.0, 1.0]})
    assert [axes.get_title() for axes in figure.axes] == ["byol"]


def test_many_models_have_a_grid_of_panels():
    logs = {f"members/{i}_loss": [1.0, 0.5] for i in range(8)} | {"loss": [8.0, 4.0]}
    figure = ml.plot.history(logs, figsize=(9, 6))
    assert len({round(axes.get_position().y0, 3) for axes in figure.axes}) == 3
    assert len({axes.lines[0].get_color() for axes in figure.axes}) == 9
    assert list(figure.get_size_inches()) == [9, 6]


def test_what_history_refuses():
    with pytest.raises(ValueError, match="what `fit` returns"):
        ml.plot.history([1, 2])
    with pytest.raises(ValueError, match=r"got \{\}, which has no logs. Give what `fit` returns"):
        ml.plot.history({})
    with pytest.raises(ValueError, match=r"which has no logs\. Give what `fit` returns"):
        ml.plot.history(keras.callbacks.History())
    with pytest.raises(ValueError, match=r"no 'f1'\. It has 'loss'"):
        ml.plot.history({"loss": [1]}, "f1")


# The heat map -------------------------------------------------------------------------------


def cells(axes):
    return {tuple(text.get_position()): text.get_text() for text in axes.texts}


def test_gradients_have_a_row_a_model_and_a_column_a_loss():
    figure = ml.plot.gradients(TinyGAN().setup(ones()).gradient_report(ones()))
    axes = figure.axes[0]
    # The generator's loss is -d g m, the discriminator's d g m - d m: see `TinyGAN`.
    assert cells(axes) == {(0, 0): "3", (1, 0): "(3)", (0, 1): "(2)", (1, 1): "1"}
    labels = axes.get_yticklabels()
    assert [label.get_text() for label in labels] == ["generator", "discriminator"]
    assert [label.get_color() for label in labels] == PALETTE[:2]
    assert [label.get_text() for label in axes.get_xticklabels()] == ["generator", "discriminator"]
    assert (axes.get_xlabel(), axes.get_ylabel()) == ("loss", "model") and not axes.patches


class Cut(Pair):
    """`a` follows the loss of `b`, which does not reach it."""

    def __init__(self):
        super().__init__()
        self.fixed = ml.MLModel(layers.Dense(1, trainable=False))

    def forward(self, x):
        a = self.a(x)
        self.fixed(x)
        return {"a": a, "b": self.b(ops.stop_gradient(a))}


def test_dead_routes_are_marked_and_frozen_models_named():
    report = Cut().setup(ones()).gradient_report(ones())
    figure = ml.plot.gradients(report)
    axes = figure.axes[0]
    dead = [patch for patch in axes.patches if patch.get_edgecolor()[:3] != (0, 0, 0)]
    assert len(dead) == len(report.dead) == 2
    texts = cells(axes)
    assert texts[1, 0] == "0\ndead" and texts[0.5, 2] == "frozen"
    assert "red frame" in figure.get_supxlabel()


@pytest.mark.parametrize("losses", [1, 2])
def test_long_names_of_models_and_losses_have_room(losses):
    models = ["discriminator_of_large_images", "generator_of_images_in_low_resolution"]
    norms = {loss: dict.fromkeys(models, 0.0) for loss in models[:losses]}
    figure = ml.plot.gradients(GradientReport(norms, [(models[0], models[0])]))
    axes, legend = figure.axes[0], figure._supxlabel
    figure.draw_without_rendering()
    labels = [*axes.get_xticklabels(), *axes.get_yticklabels(), legend]
    boxes = [label.get_window_extent() for label in labels]
    assert all(figure.bbox.x0 <= box.x0 and box.x1 <= figure.bbox.x1 for box in boxes)
    assert all(figure.bbox.y0 <= box.y0 and box.y1 <= figure.bbox.y1 for box in boxes)
    cells = axes.get_window_extent()
    assert cells.width >= losses * figure.dpi and cells.height >= 0.8 * figure.dpi
    assert not any(box.overlaps(other) for box in boxes[:-1] for other in (cells, boxes[-1]))


def test_gradients_draw_into_given_axes():
    figure = figures.new_figure((6, 3))
    left, right = figure.subplots(1, 2)
    report = TinyGAN().setup(ones()).gradient_report(ones())
    assert ml.plot.gradients(report, ax=right) is figure
    assert right.texts and not left.texts
    with pytest.raises(ValueError, match="`gradient_report`"):
        ml.plot.gradients({"a": {"a": 1.0}})


# Images -------------------------------------------------------------------------------------


def shown(figure):
    return [np.asarray(image.get_array()) for axes in figure.axes for image in axes.images]


@pytest.mark.parametrize("shape", [(5, 4, 6), (5, 4, 6, 1), (5, 4, 6, 3)])
def test_samples_are_a_grid_in_order(shape):
    images = np.random.default_rng(0).uniform(size=shape)
    figure = ml.plot.samples(ops.convert_to_tensor(images, "float32"))
    drawn = shown(figure)
    assert len(figure.axes) == 6 and len(drawn) == 5  # two rows of three
    for one, given in zip(drawn, images, strict=True):
        assert np.allclose(one, given.squeeze(), atol=1e-6)
    assert len(ml.plot.samples(images, columns=5).axes) == 5


@pytest.mark.parametrize(
    "low, high, kind, white",
    [
        (0, 1, "float32", 1),
        (-1, 1, "float32", 1),
        (-3, 5, "float32", 5),
        (0, 1.004, "float32", 1),
        (0, 200, "float32", 255),
        (0, 255, "uint8", 255),
        (0, 9, "int32", 255),
    ],
)
def test_the_range_is_found(low, high, kind, white):
    images = np.array([low, high], kind).reshape(2, 1, 1)
    dark, light = (float(image.squeeze()) for image in shown(ml.plot.samples(images)))
    black = low if kind == "float32" else 0
    assert dark == 0 and light == pytest.approx(min(1, (high - black) / (white - black)))


def test_a_given_range_cuts_what_lies_outside():
    images = np.array([-1.0, 0.5, 2.0]).reshape(3, 1, 1)
    assert np.allclose(np.ravel(shown(ml.plot.samples(images, value_range=(0, 1)))), [0, 0.5, 1])


def test_a_range_may_be_an_array():
    [image] = shown(ml.plot.samples(np.ones((1, 1, 1)), value_range=np.array([0, 2])))
    assert image.squeeze() == 0.5


@pytest.mark.parametrize(
    "given",
    [{"columns": columns} for columns in (0, -1, 2.5, True)]
    + [{"value_range": pair} for pair in (3, (1, 0), (0, 0), (0, 1, 2), "ab", (0, np.nan))],
    ids=str,
)
def test_other_columns_and_ranges_are_refused(given):
    [(name, value)] = given.items()
    with pytest.raises(ValueError, match=re.escape(f"samples got {name}={value!r}. Give the")):
        ml.plot.samples(np.zeros((2, 3, 3)), **given)


def test_a_dict_is_drawn_as_labelled_rows():
    figure = ml.plot.samples({"epoch 1": np.zeros((2, 3, 3)), 20: np.ones((3, 3, 3))})
    assert len(figure.axes) == 6 and len(shown(figure)) == 5
    labels = [axes.get_ylabel() for axes in figure.axes]
    assert labels == ["epoch 1", "", "", "20", "", ""]


def test_channels_may_come_first():
    keras.config.set_image_data_format("channels_first")
    try:
        [image] = shown(ml.plot.samples(np.zeros((1, 3, 4, 6))))
    finally:
        keras.config.set_image_data_format("channels_last")
    assert image.shape == (4, 6, 3)


@pytest.mark.parametrize("shape", [(4, 6), (2, 4, 6, 2), (0, 4, 6)])
def test_other_shapes_are_refused(shape):
    with pytest.raises(ValueError, match=r"ml\.plot\.samples got"):
        ml.plot.samples(np.zeros(shape))


# matplotlib ---------------------------------------------------------------------------------


def test_a_figure_is_saved_and_shown_in_notebooks(tmp_path):
    figure = ml.plot.samples(np.zeros((1, 3, 3)))
    figure.savefig(tmp_path / "samples.png")
    assert (tmp_path / "samples.png").stat().st_size > 0
    assert figure._repr_png_().startswith(b"\x89PNG")


def test_without_matplotlib_the_error_names_the_extra(monkeypatch):
    monkeypatch.setitem(sys.modules, "matplotlib.figure", None)
    figures._class.cache_clear()
    with pytest.raises(ImportError, match=r"mlsystem\[plot\]"):
        ml.plot.samples(np.zeros((1, 3, 3)))


def test_matplotlib_is_imported_on_first_use_only():
    for file in Path(ml.plot.__file__).parent.glob("*.py"):
        top = [
            node for node in ast.parse(file.read_text()).body if isinstance(node, ast.ImportFrom)
        ]
        assert not [node for node in top if node.module.startswith("matplotlib")], file

"""`history`: curves of a training run, with one panel for each model."""

import math
from collections.abc import Mapping, Sequence, Set
from dataclasses import dataclass
from typing import Any

from mlsystem import _learner
from mlsystem.plot import colors
from mlsystem.plot.figures import new_figure, plain_axes

# Line and marker of the validation sets, in turn. They differ in black and white too.
_VALIDATION = (("--", "o"), (":", "s"), ("-.", "^"), ((0, (5, 1, 1, 1, 1, 1)), "D"))
_TERMS = ((0, 0.45), (1, 0.45), (0, 0.75), (1, 0.7))  # of a color: to black or white, and how far
_PANEL = (3.4, 2.5)  # inches


@dataclass(frozen=True)
class _Run:
    """The numbers of one `fit`, and what is known of its system."""

    logs: Mapping[str, Sequence[float]]
    models: Sequence[str] = ()
    parts: Sequence[str] = ()
    trained: Set[str] = frozenset()  # the logs of training that are known as such
    measured: Mapping[str, Sequence[float]] | None = None  # by `validation_every`
    steps: int = 1  # from one point of the training curves to the next

    def is_validation(self, log: str) -> bool:
        """Return whether a log is of a validation set, not of a model named `val_...`."""
        return log.startswith("val_") and log not in self.trained

    def terms(self, name: str) -> dict[str, str]:
        """Return the logs of the terms that sum to the loss of a model, by term."""
        split = [part.rpartition("/") for part in self.parts]
        found = {term: f"{owner}_{term}" for owner, _, term in split if owner == name}
        return {term: log for term, log in found.items() if log in self.logs}


def history(
    history: Any, quantity: str = "loss", figsize: tuple[float, float] | None = None
) -> Any:
    """Draw the training and validation curves of a system, with one panel for each model.

    ```python
    history = gan.fit(images, epochs=20, validation_data=(held_out,))
    ml.plot.history(history).savefig("curves.png", dpi=150)
    ml.plot.history(history, "learning_rate")
    ```

    The first panel is the system's own `loss`. Training curves are solid. Each validation set has a
    line of its own: `val_loss`, `val_clean_loss`, `val_noisy_loss`. With `validation_every`, the
    horizontal axis counts batches, and the validation curves have all measured points. The panel of
    a model also has the terms of its loss. A log with fewer values than epochs, as with
    `validation_freq`, is spread evenly over the epochs.

    Args:
        history: what `fit` returns, or a dict of lists by log. A dict does not tell the terms of a
            loss, nor the order of the models: the colors follow the order of its keys. Its keys
            that start with `val_` are logs of validation sets.
        quantity: what to draw: "loss", or the name of a metric.
        figsize: width and height in inches.

    Returns:
        A matplotlib `Figure`. Save it with `figure.savefig("curves.png")`.

    Raises:
        ValueError: if `history` is of another kind or has no such quantity.
        ImportError: if matplotlib is not installed.
    """
    run = _read(history)
    panels = _panels(run, quantity)
    columns = min(len(panels), 3 if len(panels) != 4 else 2)
    rows = math.ceil(len(panels) / columns)
    size = figsize or (_PANEL[0] * columns + 1, _PANEL[1] * rows + 0.6)
    figure = new_figure(size)
    grid = figure.subplots(rows, columns, squeeze=False)
    for place, axes in enumerate(grid.flat):
        if place < len(panels):
            _draw(axes, run, panels[place], quantity)
            _label(axes, run, place, len(panels), columns, quantity)
        else:
            axes.remove()
    figure.align_ylabels()
    _legend(figure, run, quantity)
    return figure


def _read(history: Any) -> _Run:
    logs = history if isinstance(history, Mapping) else getattr(history, "history", None)
    if not isinstance(logs, Mapping) or not logs:
        raise ValueError(
            f"ml.plot.history got {history!r}{'' if logs is None else ', which has no logs'}. Give "
            "what `fit` returns after at least one epoch, or a dict of its logs: "
            "{'loss': [0.9, 0.5]}."
        )
    if history is logs:
        return _Run(history)
    learner = _learner.of(history.model) if getattr(history, "model", None) is not None else None
    if learner is None:
        return _Run(history.history, **_measured(history))
    trained = {*learner.logs.owners, *learner.metric_names()}
    models, parts = list(learner.models()), learner.known.parts
    return _Run(history.history, models, parts, trained, **_measured(history))


def _measured(history: Any) -> dict[str, Any]:
    """Return the validations in the middle of epochs, where the length of an epoch is known."""
    measured, steps = getattr(history, "validations", None), (history.params or {}).get("steps")
    return {"measured": measured, "steps": steps} if measured and steps else {}


def _panels(run: _Run, quantity: str) -> list[tuple[str, str, str]]:
    """Return the name, log and color of each panel. The system has the name ""."""
    terms = {log for name in run.models for log in run.terms(name).values()}
    logs = [log for log in run.logs if log not in terms and not run.is_validation(log)]
    found = [_name(log, quantity) for log in logs]
    order = [name for name in ("", *run.models) if name in found]
    names = list(dict.fromkeys([*order, *(name for name in found if name is not None)]))
    if not names:
        held = ", ".join(map(repr, run.logs)) or "no logs"
        raise ValueError(f"The history has no '{quantity}'. It has {held}.")
    if (
        names[0] == ""
        and len(names) == 2
        and run.logs[quantity] == run.logs[f"{names[1]}_{quantity}"]
    ):
        names = names[1:]  # a system with one loss: its sum says nothing more
    own = colors.model_colors(run.models or [name for name in names if name])
    alone = colors.PALETTE[0] if len(names) == 1 else colors.NEUTRAL
    return [
        (name, f"{name}_{quantity}" if name else quantity, own.get(name, alone)) for name in names
    ]


def _name(log: str, quantity: str) -> str | None:
    """Return the model of a log of training, "" for the system, and None for other logs."""
    if log == quantity:
        return ""
    return log.removesuffix(f"_{quantity}") if log.endswith(f"_{quantity}") else None


def _sets(run: _Run, log: str) -> dict[str, str]:
    """Return the validation logs of a log of training, by validation set."""
    trained = [name for name in run.logs if not run.is_validation(name)]
    found = {}
    for full in run.measured or run.logs:
        ends = [name for name in trained if full == f"val_{name}" or full.endswith(f"_{name}")]
        if run.is_validation(full) and max(ends, key=len, default="") == log:
            found[full.removeprefix("val_").removesuffix(log).removesuffix("_")] = full
    return found


def _draw(axes: Any, run: _Run, panel: tuple[str, str, str], quantity: str) -> None:
    name, log, color = panel
    terms = run.terms(name) if quantity == "loss" else {}
    for place, (term, full) in enumerate(terms.items()):
        shade = _shade(color, *_TERMS[place % len(_TERMS)])
        _line(axes, run, full, color=shade, label=term, linewidth=1.1)
    _line(axes, run, log, color=color, linewidth=1.9)
    for place, full in enumerate(_sets(run, log).values()):
        _line(axes, run, full, color=color, **_validation_style(place))
    if terms:
        axes.legend(loc="upper left", bbox_to_anchor=(1, 1), frameon=False, fontsize="small")


def _shade(color: str, end: int, by: float) -> tuple[float, ...]:
    """Return a color on the way to black (0) or white (1)."""
    channels = [int(color[place : place + 2], 16) / 255 for place in (1, 3, 5)]
    return tuple(value + (end - value) * by for value in channels)


def _validation_style(place: int) -> dict[str, Any]:
    style, marker = _VALIDATION[place % len(_VALIDATION)]
    return {"linestyle": style, "marker": marker, "markersize": 3}


def _line(axes: Any, run: _Run, log: str, **style: Any) -> None:
    x, y = _points(run, log)
    if len(y) == 1:
        style.setdefault("marker", "o")
    axes.plot(x, y, **style)


def _points(run: _Run, log: str) -> tuple[list[float], list[float]]:
    if run.measured and log in run.measured:
        return list(run.measured["batch"]), list(run.measured[log])
    epochs, values = max(map(len, run.logs.values())), list(run.logs[log])
    step = epochs * run.steps / max(len(values), 1)
    return [step * (place + 1) for place in range(len(values))], values


def _label(axes: Any, run: _Run, place: int, count: int, columns: int, quantity: str) -> None:
    from matplotlib.ticker import MaxNLocator

    name, _, color = _panels(run, quantity)[place]
    plain_axes(axes)
    axes.set_title(name or ("system" if count > 1 else ""), color=color, fontweight="bold")
    axes.xaxis.set_major_locator(MaxNLocator(nbins=6, integer=True))
    if place + columns >= count:
        axes.set_xlabel("batch" if run.measured else "epoch")
    if place % columns == 0:
        axes.set_ylabel(quantity)


def _legend(figure: Any, run: _Run, quantity: str) -> None:
    """Name the lines below the panels, once for all of them."""
    from matplotlib.lines import Line2D

    lines = [Line2D([], [], color="#333333", linewidth=1.9, label="training")]
    for place, name in enumerate(_sets(run, _panels(run, quantity)[0][1])):
        label = f"validation: {name}" if name else "validation"
        lines.append(Line2D([], [], color="#333333", label=label, **_validation_style(place)))
    if len(lines) > 1:
        figure.legend(handles=lines, loc="outside lower center", ncols=len(lines), frameon=False)

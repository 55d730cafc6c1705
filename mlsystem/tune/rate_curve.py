"""`RateCurve` and `LearningRates`: what a learning rate range test has found."""

import io
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np

from mlsystem.diagnostics.gradient_report import table
from mlsystem.plot import colors
from mlsystem.plot.figures import new_figure, plain_axes
from mlsystem.tune.suggestion import START_RATIO, smoothed

_PANEL = (3.4, 2.6)  # inches


@dataclass(frozen=True, eq=False)
class RateCurve:
    """The sweep of one model. A notebook shows the curves.

    Attributes:
        name: the model.
        rate: the suggested learning rate.
        source: what the suggestion comes from: "loss" or "update ratio".
        reason: the same in a sentence, with the reason.
        before: the learning rate before the sweep, which the optimizer still has.
        rates: the learning rate of each update, an array of shape (updates,).
        losses: the loss that the model follows, on the batch after each update. May be one shorter.
        base: the same with all updates at the lowest rate, on the same batches.
        ratios: the norm of each update, divided by the norm of the weights.
        end: why the sweep ended, in a sentence.
        rival: the other model of a game, which moves this loss too. None outside of games. The rate
            of a model in a game is only a hint, and `LearningRates.apply` leaves it out.
    """

    name: str
    rate: float
    source: str
    reason: str
    before: float
    rates: np.ndarray
    losses: np.ndarray
    base: np.ndarray
    ratios: np.ndarray
    end: str
    rival: str | None = None

    def plot(self) -> Any:
        """Return a matplotlib `Figure` of the curves. It needs the extra `plot`."""
        return _figure({self.name: self})

    def _repr_svg_(self) -> str | None:
        return _svg({self.name: self})


class LearningRates(Mapping[str, RateCurve]):
    """The learning rates that `ml.tune.learning_rate` suggests: `result[model].rate`.

    Print it for a table with reasons. A notebook shows the curves of all models.
    """

    def __init__(self, system: Any, curves: Mapping[str, RateCurve], what: str) -> None:
        self._system, self._curves, self._what = system, dict(curves), what

    def __getitem__(self, name: str) -> RateCurve:
        if name not in self._curves:
            known = ", ".join(map(repr, self._curves))
            raise KeyError(f"There is no sweep of {name!r}. There are sweeps of {known}.")
        return self._curves[name]

    def __iter__(self) -> Any:
        return iter(self._curves)

    def __len__(self) -> int:
        return len(self._curves)

    def apply(self) -> dict[str, float]:
        """Set the suggested learning rates, and return those that were set, by model.

        A model in a game keeps its rate, because a sweep of one model cannot find the rates of a
        game. Set it yourself to try the hint:
        `gan.optimizers["generator"].learning_rate = found["generator"].rate`.
        """
        rates = {name: curve.rate for name, curve in self.items() if curve.rival is None}
        for name, rate in rates.items():
            self._system._mlsystem.optimizers[name].learning_rate = rate
        return rates

    def plot(self) -> Any:
        """Return a matplotlib `Figure` with a panel for each model. It needs the extra `plot`."""
        return _figure(self._curves)

    def _repr_svg_(self) -> str | None:
        return _svg(self._curves)

    def __str__(self) -> str:
        rows = [["model", "rate now", "suggested", "from"]]
        rows += [
            [
                name,
                f"{curve.before:.2g}",
                f"{curve.rate:.2g}",
                f"its {curve.source}{'' if curve.rival is None else ' (a hint)'}",
            ]
            for name, curve in self.items()
        ]
        reasons = [f"{name}: {curve.reason} {curve.end}" for name, curve in self.items()]
        return "\n".join([self._what, *table(rows), *reasons])

    __repr__ = __str__


def _svg(curves: Mapping[str, RateCurve]) -> str | None:
    """Return curves as SVG. None without matplotlib: a notebook then shows the text."""
    try:
        figure = _figure(curves)
    except ImportError:
        return None
    content = io.StringIO()
    figure.savefig(content, format="svg")
    return content.getvalue()


def _figure(curves: Mapping[str, RateCurve]) -> Any:
    """Draw losses in the upper row and update ratios in the lower one, a column for each model."""
    figure = new_figure((_PANEL[0] * len(curves) + 0.6, 2 * _PANEL[1]))
    grid = figure.subplots(2, len(curves), squeeze=False, sharex="col")
    shades = colors.model_colors(curves)
    for column, (name, curve) in enumerate(curves.items()):
        upper, lower = grid[0, column], grid[1, column]
        upper.set_title(name, color=shades[name], fontweight="bold")
        rates = curve.rates[: len(curve.losses)]
        upper.plot(rates, smoothed(curve.base), color=colors.NEUTRAL, linewidth=1)
        _draw(upper, rates, curve.losses, curve, shades[name])
        _draw(lower, curve.rates, curve.ratios, curve, shades[name])
        lower.set_yscale("log")
        lower.axhline(START_RATIO, color=colors.NEUTRAL, linewidth=0.8, linestyle=":")
        lower.set_xlabel("learning rate")
    grid[0, 0].set_ylabel("loss")
    grid[1, 0].set_ylabel("update / weights")
    return figure


def _draw(axes: Any, rates: np.ndarray, values: np.ndarray, curve: RateCurve, color: str) -> None:
    """Draw one curve, its running mean and the suggested rate."""
    plain_axes(axes)
    axes.set_xscale("log")
    axes.plot(rates, values, color=color, alpha=0.35, linewidth=1)
    if len(values):
        axes.plot(rates, smoothed(values), color=color, linewidth=1.9)
        low, high = float(np.min(values)), float(np.max(smoothed(values)))
        if high > low > 0 and high > 20 * low:
            axes.set_yscale("log")
    axes.axvline(curve.rate, color="#333333", linewidth=1, linestyle="--")

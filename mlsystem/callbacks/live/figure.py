"""`Figure`: the curves of all models in one figure of matplotlib, with axes that stay."""

import io
import math
from dataclasses import dataclass
from typing import Any

from mlsystem.callbacks.compact_logs import GAP, short
from mlsystem.callbacks.live.readings import Curve
from mlsystem.callbacks.live.rows import Row
from mlsystem.callbacks.live.view import View
from mlsystem.plot.colors import NEUTRAL

_COLUMNS = 3  # panels in a row
# Sizes in inches. A layout that follows the labels would let the panels jump.
_WIDTH, _HEIGHT = 3.4, 2.2
_LEFT, _RIGHT, _BOTTOM, _TOP = 0.6, 0.15, 0.45, 0.35
_ENOUGH = 8  # values by which an axis is judged to be too large
_STYLES = ("o", "s", "^", "D")  # the marks of validation sets


@dataclass(frozen=True)
class Limits:
    """The limits of a vertical axis, for the part of the curves from an epoch on."""

    low: float
    high: float
    since: float = -math.inf


class Figure:
    """A panel for each model, and the samples below them.

    The horizontal axes cover the whole run. The vertical ones change if a curve leaves them, and
    if a curve has come to fill less than an eighth: then by a large step.

    Args:
        view: the first view, which says what panels there are.
    """

    def __init__(self, view: View) -> None:
        from matplotlib.figure import Figure as Canvas

        rows = view.rows
        columns = min(_COLUMNS, len(rows))
        lines = math.ceil(len(rows) / columns)
        width = max(columns, 2) * _WIDTH
        strip = 0.0 if view.film is None else (width - 2 * _RIGHT) * view.film.aspect
        below = strip + _TOP if strip else 0.0
        height = lines * _HEIGHT + below
        self.figure = Canvas(figsize=(width, height), dpi=100)

        def axes(left: float, bottom: float, wide: float, high: float) -> Any:
            inches = left / width, bottom / height, wide / width, high / height
            return self.figure.add_axes(inches)

        inner = _WIDTH - _LEFT - _RIGHT, _HEIGHT - _BOTTOM - _TOP
        places = [divmod(i, columns) for i in range(len(rows))]
        corners = [(c * _WIDTH + _LEFT, height - (r + 1) * _HEIGHT + _BOTTOM) for r, c in places]
        self.panels = [Panel(axes(*corner, *inner), view.first, view.last) for corner in corners]
        self.film = axes(_RIGHT, 0.0, width - 2 * _RIGHT, strip) if strip else None

    def png(self, view: View) -> bytes:
        """Draw a view, and return the figure as a PNG file."""
        for panel, row in zip(self.panels, view.rows, strict=False):
            panel.draw(row)
        if self.film is not None:
            view.film.draw(self.film)
        file = io.BytesIO()
        self.figure.savefig(file, format="png")
        return file.getvalue()


class Panel:
    """The curve of one loss.

    Args:
        axes: where to draw.
        first: the number of epochs at the left.
        last: the number of epochs at the right.
    """

    def __init__(self, axes: Any, first: float, last: float) -> None:
        self.axes = axes
        axes.set_xlim(first, last)
        axes.set_xlabel("epochs", fontsize=8, color=NEUTRAL)
        axes.tick_params(labelsize=8, colors=NEUTRAL)
        axes.grid(alpha=0.25)
        for side in ("top", "right"):
            axes.spines[side].set_visible(False)
        self.lines: dict[str, Any] = {}
        self.limits: Limits | None = None

    def draw(self, row: Row) -> None:
        """Draw the curve of a loss as it is now, and that of each validation set."""
        self.axes.set_title(_title(row), fontsize=9, color=row.color, loc="left")
        self._line("", row.curve, color=row.color, linewidth=1.5)
        for i, (name, curve) in enumerate(row.validation.items()):
            mark = _STYLES[i % len(_STYLES)]
            style = {"marker": mark, "markersize": 3, "linestyle": ":", "linewidth": 1}
            self._line(f"val {name}".strip(), curve, color=row.color, **style)
        if row.validation:
            self.axes.legend(fontsize=7, frameon=False, loc="upper right")
        self.limits = limits([row.curve, *row.validation.values()], self.limits)
        if self.limits is not None:
            self.axes.set_ylim(self.limits.low, self.limits.high)

    def _line(self, name: str, curve: Any, **style: Any) -> None:
        if name not in self.lines:
            [self.lines[name]] = self.axes.plot([], [], label=name or "_", **style)
        self.lines[name].set_data([x for x, _ in curve], [y for _, y in curve])


def limits(curves: list[Curve], before: Limits | None) -> Limits | None:
    """Return the limits of a vertical axis: those of before, unless the curves need others.

    >>> limits([[(0.0, 1.0), (1.0, 3.0)]], None)
    Limits(low=0.0, high=4.0, since=-inf)
    >>> limits([[(0.0, 1.0), (1.0, 3.0), (2.0, 3.9)]], Limits(0.0, 4.0)).high
    4.0
    """
    since = before.since if before else -math.inf
    points = [(x, y) for curve in curves for x, y in curve if math.isfinite(y) and x >= since]
    if not points:
        return before
    values = [y for _, y in points]
    if before is None or min(values) < before.low or max(values) > before.high:
        return _around(values, since)
    half = sorted(x for x, _ in points)[len(points) // 2]
    recent = [y for x, y in points if x >= half]
    is_small = max(recent) - min(recent) < (before.high - before.low) / 8
    return _around(recent, half) if is_small and len(recent) >= _ENOUGH else before


def _around(values: list[float], since: float) -> Limits:
    """Return limits with half of the range left on each side, but none below zero."""
    low, high = min(values), max(values)
    margin = max(high - low, 0.2 * max(abs(low), abs(high)), 1e-6) / 2
    return Limits(max(0.0, low - margin) if low >= 0 else low - margin, high + margin, since)


def _title(row: Row) -> str:
    return row.name if row.value is None else f"{row.name}{GAP}{short(row.value)}"

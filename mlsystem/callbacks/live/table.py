"""The table of `Live`: a row for each model, by `rich`."""

from collections.abc import Callable
from typing import Any

from rich.console import Console, Group
from rich.measure import Measurement
from rich.table import Table
from rich.text import Text

from mlsystem.callbacks.compact_logs import GAP, short
from mlsystem.callbacks.live.rows import Row
from mlsystem.callbacks.live.sparkline import sparkline
from mlsystem.callbacks.live.view import View

Cell = Callable[[Row], Any]
Columns = dict[str, tuple[Cell, Any]]  # the cell of a row, and its alignment
# What a narrow terminal goes without, in this order.
_LEFT_OUT = ("trend", "skipped", "steps", "rate", "update", "|grad|")


def table(view: View, console: Console) -> Group:
    """Return a view as text: heading, table, terms and advice.

    Args:
        view: what to show.
        console: where to show it. Its width decides which columns there are.
    """
    name, *more = view.heading
    heading = Text(GAP).append(name, "bold").append("".join(GAP + part for part in more))
    columns = _columns(view.rows, console.options.ascii_only)
    for name in _LEFT_OUT:
        if _width(_table(view.rows, columns), console) > console.width:
            columns.pop(name, None)
    numbers = [(Text(row.name, row.color), _more(row), "dim") for row in view.rows if row.more]
    advice = _pairs([(Text("!"), sentence, "yellow") for sentence in view.sentences])
    return Group(heading, _table(view.rows, columns), _pairs(numbers), advice)


def _width(renderable: Any, console: Console) -> int:
    return Measurement.get(console, console.options.update(max_width=10**4), renderable).maximum


def _table(rows: list[Row], columns: Columns) -> Table:
    found = Table(box=None, pad_edge=False, padding=(0, 2, 0, 0), header_style="dim")
    found.add_column("")
    for heading, (_, justify) in columns.items():
        found.add_column(heading, justify=justify, no_wrap=True)
    for row in rows:
        found.add_row("", *(cell(row) for cell, _ in columns.values()))
    return found


def _pairs(lines: list[tuple[Text, str, str]]) -> Table:
    """Return lines of a name and a text, which is indented where it is long."""
    found = Table.grid(padding=(0, 2, 0, 0))
    for name, text, style in lines:
        found.add_row("", name, Text(text, style))
    return found


def _columns(rows: list[Row], ascii_only: bool) -> Columns:
    """Return the columns. Those of measured numbers are left out without a measurement."""
    sets = dict.fromkeys(name for row in rows for name in row.validation)
    found: Columns = {
        "model": (lambda row: Text(row.name, style=row.color), "left"),
        "loss": (lambda row: _number(row.value), "right"),
        **{f"val {name}".strip(): (_validation(name), "right") for name in sets},
        "trend": (lambda row: _trend(row, ascii_only), "left"),
        "rate": (lambda row: _number(row.rate), "right"),
        "|grad|": (lambda row: _number(row.gradient), "right"),
        "update": (lambda row: _number(row.ratio), "right"),
        "steps": (lambda row: _count(row.steps, row), "right"),
        "skipped": (lambda row: _count(row.skipped, row), "right"),
    }
    if all(row.gradient is None for row in rows):
        found.pop("|grad|")
    if all(row.ratio is None for row in rows):
        found.pop("update")
    return found


def _validation(name: str) -> Cell:
    def cell(row: Row) -> str:
        curve = row.validation.get(name)
        return _number(curve[-1][1] if curve else None)

    return cell


def _trend(row: Row, ascii_only: bool) -> Text:
    return Text(sparkline([value for _, value in row.curve], ascii_only=ascii_only), row.color)


def _more(row: Row) -> str:
    return GAP.join(f"{name} {short(value)}" for name, value in row.more.items())


def _number(value: float | None) -> str:
    return "-" if value is None else short(value)


def _count(value: int | None, row: Row) -> str:
    if not row.is_model:
        return ""
    return "frozen" if value is None else f"{value:,}"

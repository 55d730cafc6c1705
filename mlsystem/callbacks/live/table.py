"""The table of `Live`: a row for each model, by `rich`."""

from collections.abc import Callable
from typing import Any

from rich.console import Group
from rich.table import Table
from rich.text import Text

from mlsystem.callbacks.compact_logs import GAP, short
from mlsystem.callbacks.live.rows import Row
from mlsystem.callbacks.live.sparkline import sparkline
from mlsystem.callbacks.live.view import View

Cell = Callable[[Row], Any]


def table(view: View, ascii_only: bool = False) -> Group:
    """Return a view as text: heading, table and advice.

    Args:
        view: what to show.
        ascii_only: whether the output cannot show other characters.
    """
    heading = Text(GAP.join(["", *view.heading]) if view.heading else "")
    if view.heading:
        heading.stylize("bold", 0, len(GAP) + len(view.heading[0]))
    notes = [Text(f"  ! {sentence}", style="yellow") for sentence in view.sentences]
    return Group(heading, _table(view.rows, ascii_only), *notes)


def _table(rows: list[Row], ascii_only: bool) -> Table:
    columns = _columns(rows, ascii_only)
    found = Table(box=None, pad_edge=False, padding=(0, 2, 0, 0), header_style="dim")
    found.add_column("")
    for heading, (_, justify) in columns.items():
        found.add_column(heading, justify=justify, no_wrap=heading != "terms", overflow="ellipsis")
    for row in rows:
        found.add_row("", *(cell(row) for cell, _ in columns.values()))
    return found


def _columns(rows: list[Row], ascii_only: bool) -> dict[str, tuple[Cell, Any]]:
    """Return the columns for which there are numbers, each with the function of its cells."""
    sets = dict.fromkeys(name for row in rows for name in row.validation)
    found: dict[str, tuple[Cell, Any]] = {
        "model": (lambda row: Text(row.name, style=row.color), "left"),
        "loss": (lambda row: _number(row.value), "right"),
        **{f"val {name}".strip(): (_validation(name), "right") for name in sets},
        "trend": (lambda row: _trend(row, ascii_only), "left"),
        "rate": (lambda row: _number(row.rate), "right"),
        "|grad|": (lambda row: _number(row.gradient), "right"),
        "update": (lambda row: _number(row.ratio), "right"),
        "steps": (lambda row: _count(row.steps, row), "right"),
        "skipped": (lambda row: _count(row.skipped, row), "right"),
        "terms": (lambda row: Text(_more(row), style="dim"), "left"),
    }
    measured = {
        "|grad|": any(row.gradient is not None for row in rows),
        "update": any(row.ratio is not None for row in rows),
        "terms": any(row.more for row in rows),
    }
    return {name: column for name, column in found.items() if measured.get(name, True)}


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

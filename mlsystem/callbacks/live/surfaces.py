"""Where `Live` shows a run: a terminal, a notebook, or a pipe."""

import contextlib
import functools
import importlib.util
import io
import sys
import time
from collections.abc import Mapping
from typing import Any

from mlsystem.callbacks import compact_logs
from mlsystem.callbacks.live.figure import Figure
from mlsystem.callbacks.live.table import table
from mlsystem.callbacks.live.view import View
from mlsystem.engine import engine
from mlsystem.engine.distribution import first_process

_WIDTH, _LINE = 120, 100  # columns of a table in a notebook, and of a line about an epoch


class Surface:
    """Where a run is shown. Subclasses override what they show."""

    is_timed = True  # whether it is updated every few seconds

    def start(self, view: View) -> None:
        """Show the first view, before training starts."""

    def update(self, view: View) -> None:
        """Show another view in its place."""

    def end_epoch(self, heading: str, logs: Mapping[str, float], losses: list[str]) -> None:
        """Show that an epoch is over."""

    def close(self) -> None:
        """Leave the last view as it is. Called also after an error."""


class Terminal(Surface):
    """A table that is drawn over itself. What others print appears above it."""

    def __init__(self) -> None:
        from rich.console import Console
        from rich.live import Live

        self.live = Live(console=Console(), auto_refresh=False)

    def start(self, view: View) -> None:
        """See `Surface`."""
        self.live.start()
        self.update(view)

    def update(self, view: View) -> None:
        """See `Surface`."""
        self.live.update(table(view, self.live.console), refresh=True)

    def close(self) -> None:
        """See `Surface`."""
        self.live.stop()


class Notebook(Surface):
    """One figure with the table below it, each updated in place. Without matplotlib the table."""

    def __init__(self) -> None:
        self.has_figure = importlib.util.find_spec("matplotlib") is not None
        self.figure: Figure | None = None
        self.handles: list[Any] = []

    def start(self, view: View) -> None:
        """See `Surface`."""
        from IPython.display import display

        if self.has_figure:
            self.figure = Figure(view)
        self.handles = [display(data, raw=True, display_id=True) for data in self._data(view)]

    def update(self, view: View) -> None:
        """See `Surface`."""
        for handle, data in zip(self.handles, self._data(view), strict=True):
            handle.update(data, raw=True)

    def _data(self, view: View) -> list[dict[str, Any]]:
        pictures = [] if self.figure is None else [{"image/png": self.figure.png(view)}]
        return [*pictures, {"text/html": html(view), "text/plain": text(view)}]


class Pipe(Surface):
    """A file or another program: one line for each epoch."""

    is_timed = False

    def __init__(self) -> None:
        self.start_of_epoch = time.perf_counter()

    def end_epoch(self, heading: str, logs: Mapping[str, float], losses: list[str]) -> None:
        """See `Surface`."""
        width = max(10, _LINE - len(heading) - len(compact_logs.GAP))
        line = compact_logs.line(logs, losses, width)
        print(f"{heading}{compact_logs.GAP}{line}", flush=True)


class Silent(Surface):
    """Nothing: the first of several processes shows the run."""

    is_timed = False


def choose() -> Surface:
    """Return the surface for the standard output of this program.

    Of several processes, the first prints a line for each epoch. It must not read or compute what
    the others do not at the same moment.
    """
    if engine.replicas.count > 1:
        return Pipe() if first_process.is_here() else Silent()
    if in_notebook():
        return Notebook()
    return Terminal() if in_terminal() else Pipe()


def in_notebook() -> bool:
    """Return whether this program is the kernel of a notebook."""
    shell = getattr(sys.modules.get("IPython"), "get_ipython", lambda: None)()
    return hasattr(shell, "kernel")


def in_terminal() -> bool:
    """Return whether the standard output is a terminal that can draw over lines."""
    from rich.console import Console

    with contextlib.suppress(AttributeError):
        return bool(sys.stdout.isatty() and Console().is_interactive)
    return False


def html(view: View) -> str:
    """Return the table as HTML."""
    console = _console(record=True)
    console.print(table(view, console))
    style = "font-family:Menlo,Consolas,'DejaVu Sans Mono',monospace;line-height:1.3"
    code = f'<pre style="{style}">{{code}}</pre>'
    return str(console.export_html(inline_styles=True, code_format=code))


def text(view: View) -> str:
    """Return the table as plain text."""
    console = _console()
    console.print(table(view, console))
    return str(console.file.getvalue())


def _console(record: bool = False) -> Any:
    from rich.console import Console

    # Neither a terminal nor a notebook, whatever this program runs in.
    forced = functools.partial(Console, force_jupyter=False, force_terminal=False)
    return forced(file=io.StringIO(), width=_WIDTH, record=record)

"""`BarLine`: a progress bar of one line, that is drawn over itself."""

import os
import shutil
import sys
import time
from collections.abc import Callable
from typing import Any

from mlsystem.callbacks.compact_logs import GAP

COLUMNS = 100
_BAR, _INTERVAL = 16, 0.05  # drawn as often as by Keras, in seconds
_BOLD, _GREEN, _GREY, _PLAIN = "\x1b[1m", "\x1b[32m", "\x1b[37m", "\x1b[0m"


class BarLine:
    """The progress of one epoch or evaluation, at most 100 columns wide.

    Args:
        target: number of batches, or None if it is unknown.
        verbose: 1 for a bar that moves, 2 for one line at the end.
        front: the start of the line.
    """

    def __init__(self, target: int | None, verbose: Any, front: str = "") -> None:
        self.target, self.front = target, front
        self.moves = verbose == 1 and _moves()
        self.seen = self.length = 0
        self.bar = _BAR if self.moves else 0
        self.start = time.perf_counter()
        self.first = self.drawn = 0.0  # when the first batch ended, and when it was drawn

    def draw(self, seen: int, logs: Callable[[int], str]) -> None:
        """Draw the line a few times a second. `logs` returns the end of the line, given a width."""
        self.seen, now = seen, time.perf_counter()
        self.first = self.first or now
        if self.moves and now - self.drawn >= _INTERVAL:
            self.drawn = now
            self._write(logs, now, is_last=False)

    def end(self, logs: Callable[[int], str]) -> None:
        """Draw the line for the last time."""
        self.seen = self.target = self.target or self.seen
        self._write(logs, time.perf_counter(), is_last=True)

    def _write(self, logs: Callable[[int], str], now: float, is_last: bool) -> None:
        place = f"{self.seen}/{self.target}" if self.target else f"{self.seen} batches"
        taken = self._time(now, is_last)
        bare = len(self.front) + len(f"{place} {taken}{GAP}")
        columns = _columns()
        least = 0 if is_last else _BAR // 4
        while self.bar > least and bare + 1 + self.bar + len(logs(columns)) > columns:
            self.bar //= 2  # and stays so, to move as little as possible
        parts = [f"{_BOLD}{place}{_PLAIN}", self._bar(), taken] if self.moves else [place, taken]
        text = logs(max(10, columns - bare - self.bar - 1))
        length = bare + len(text)
        start, blank = "\r" * self.moves, " " * (self.length - length)
        self.length = length
        shown = " ".join(part for part in parts if part)
        sys.stdout.write(f"{start}{self.front}{shown}{GAP}{text}{blank}" + "\n" * is_last)
        sys.stdout.flush()

    def _bar(self) -> str:
        done = int(self.bar * self.seen / self.target) if self.target else 0
        if not self.bar:
            return ""
        return f"{_GREEN}{'━' * done}{_GREY}{'━' * (self.bar - done)}{_PLAIN}"

    def _time(self, now: float, is_last: bool) -> str:
        """Return the time that is left, or in the end that was taken, and the time of a step."""
        each = (now - self.start) / max(1, self.seen)
        if self.first and self.seen > 1:  # the first step compiles
            each = (now - self.first) / (self.seen - 1)
        is_left = self.target is not None and not is_last
        seconds = each * ((self.target or 0) - self.seen) if is_left else now - self.start
        return f"{duration(seconds)} {_each(each)}"


def duration(seconds: float) -> str:
    """Return a time in words, as `8s`, `1:20` or `2:05:00`.

    >>> duration(8.4), duration(80), duration(7500)
    ('8s', '1:20', '2:05:00')
    """
    whole = int(seconds)
    if whole < 60:
        return f"{whole}s"
    minutes = f"{whole // 60 % 60}:{whole % 60:02d}"
    return minutes if whole < 3600 else f"{whole // 3600}:{minutes.rjust(5, '0')}"


def _columns() -> int:
    return min(COLUMNS, shutil.get_terminal_size((COLUMNS + 1, 0)).columns - 1)


def _each(seconds: float) -> str:
    for unit, size in (("s", 1.0), ("ms", 1e-3)):
        if seconds >= size:
            return f"{seconds / size:.0f}{unit}/step"
    return f"{seconds * 1e6:.0f}us/step"


def _moves() -> bool:
    """Return whether the output can draw over a line: a terminal, a notebook, or PyCharm."""
    is_terminal = hasattr(sys.stdout, "isatty") and sys.stdout.isatty()
    return is_terminal or "ipykernel" in sys.modules or "PYCHARM_HOSTED" in os.environ

"""`TensorBoard`: event files, written by tensorboardX without TensorFlow."""

import importlib.util
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from mlsystem._checks import as_folder
from mlsystem.callbacks.tracking.target import Charts, Target

_MARK = ".mlsystem-run"  # shows that a run has taken a folder


class TensorBoard(Target):
    """A folder of event files.

    If the folder has events of another run, the run gets the next free folder, as `runs/gan-2`. The
    number continues a run, so that no file decides about a path.
    """

    package = "tensorboardX"
    advice = "Choose a folder that can be written"

    def __init__(self, place: Any = None) -> None:
        super().__init__(None if place is None else as_folder(place, "Log('tensorboard')"))

    def start(self, title: str, run: str | None, step: int, charts: Charts) -> str:
        """Open an event file. A continued run hides the points after its checkpoint."""
        from tensorboardX import SummaryWriter

        place = Path(self.place or Path("runs", title))
        number = int(run) if run and run.isdigit() else _taken(place)
        folder = _numbered(place, number)
        folder.mkdir(parents=True, exist_ok=True)
        # Files are named by the second, so that a quick second run would overwrite the first.
        self.writer = SummaryWriter(
            str(folder), purge_step=step + 1 if run else None, filename_suffix=f".{step}"
        )
        if not run:
            self.writer.add_custom_scalars(_layout(charts))
        self.writer.flush()
        return str(number)

    def configuration(self, values: Mapping[str, Any]) -> None:
        """Write a table."""
        self.writer.add_text("configuration", _table(values))

    def log(self, values: Mapping[str, float], step: int) -> None:
        """Write scalars."""
        for name, value in values.items():
            self.writer.add_scalar(name, value, step)
        self.writer.flush()

    def image(self, name: str, pixels: Any, step: int) -> None:
        """Write an image."""
        self.writer.add_image(name, pixels, step, dataformats="HWC")

    def picture(self, picture: Any) -> None:
        """Write an image, or text without matplotlib."""
        if importlib.util.find_spec("matplotlib"):
            super().picture(picture)
        else:
            self.writer.add_text("picture", f"```text\n{picture}\n```")

    def best(self, values: Mapping[str, float], step: int) -> None:
        """Write a table. A chart for each single value would hide the others."""
        self.writer.add_text("best", _table(values), step)

    def end(self, failed: bool) -> None:
        """Close the file."""
        self.writer.close()


def _table(values: Mapping[str, Any]) -> str:
    lines = [f"| {name} | {value} |" for name, value in values.items()]
    return "\n".join(["| name | value |", "|---|---|", *lines])


def _numbered(place: Path, number: int) -> Path:
    return place if number == 1 else place.with_name(f"{place.name}-{number}")


def _taken(place: Path) -> int:
    """Take the first free folder, and return its number."""
    number = 1
    while not _take(_numbered(place, number)):
        number += 1
    return number


def _take(folder: Path) -> bool:
    """Take a folder without events. Only one of several processes that start at once does."""
    folder.mkdir(parents=True, exist_ok=True)
    if any(folder.glob("events.out.tfevents.*")):
        return False
    try:
        (folder / _MARK).touch(exist_ok=False)
    except FileExistsError:
        return False
    return True


def _layout(charts: Charts) -> dict[str, Any]:
    """Return the layout of the page "Custom Scalars": a category for each model."""
    return {
        model or "system": {
            title: ["Multiline", [f"^{re.escape(name)}$" for name in series]]
            for title, series in rows.items()
        }
        for model, rows in charts.items()
    }

"""`Target`: base class of the trackers that `Log` writes to."""

import importlib.util
import tempfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any

Charts = dict[str, dict[str, list[str]]]  # series of one chart, by model and title


class Target:
    """A tracker. Only `start` may raise an error: later errors become a warning.

    Each subclass imports its package in `start`.

    Args:
        place: the folder, project or experiment. None for a default.
    """

    package = ""  # the module to import
    advice = "See that it can be reached"  # if a run cannot be opened
    takes_images = True

    def __init__(self, place: Any = None) -> None:
        if place is not None and not isinstance(place, (str, Path)):
            raise TypeError(f"Log got place={place!r}; give a name or the path of a folder.")
        self.place = place

    @property
    def name(self) -> str:
        """The name of the tracker in messages."""
        return type(self).__name__

    def start(self, title: str, run: str | None, step: int, charts: Charts) -> str:
        """Open a run, and return what `run` takes to continue it.

        Args:
            title: the name of the trained model, for a default of the place.
            run: the run to continue. None starts a new one.
            step: number of batches that are already trained.
            charts: the series that belong into one chart.
        """
        raise NotImplementedError

    def configuration(self, values: Mapping[str, Any]) -> None:
        """Write the configuration and the versions of packages."""

    def resumed(self, values: Mapping[str, Any]) -> None:
        """Write the configuration of a run that is continued, where the tracker needs that."""

    def log(self, values: Mapping[str, float], step: int) -> None:
        """Write one point of some series."""
        raise NotImplementedError

    def image(self, name: str, pixels: Any, step: int) -> None:
        """Write an image: an array of bytes of shape (height, width, 3)."""

    def picture(self, picture: Any) -> None:
        """Write the picture of the system."""
        if importlib.util.find_spec("matplotlib"):
            self.image("picture", pixels_of(picture), 0)

    def best(self, values: Mapping[str, float], step: int) -> None:
        """Write the best values of the run."""
        self.log({f"best/{name}": value for name, value in values.items()}, step)

    def end(self, failed: bool) -> None:
        """Close the run. `failed` tells that training ended by an error."""


def pixels_of(picture: Any) -> Any:
    """Return the picture of a system as bytes, on white."""
    from matplotlib.image import imread

    with tempfile.TemporaryDirectory() as folder:
        drawn = imread(picture.save(Path(folder) / "picture.png"))
    alpha = drawn[..., 3:]
    return ((drawn[..., :3] * alpha + 1 - alpha) * 255).round().astype("uint8")

"""`Film`: samples of a model in the course of training, a row for each time they were drawn."""

import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np

from mlsystem.plot.sample_grid import as_images, scaled, value_range_of

_MOMENTS, _SAMPLES, _GAP = 8, 4, 2  # columns and rows at most; pixels between images


class Film:
    """A strip of images in the course of training: a column for each of at most eight moments.

    Args:
        samples: a function without arguments that returns images.
        path: the file to write it to. None for no file.
    """

    def __init__(self, samples: Callable[[], Any], path: Path | None = None) -> None:
        self.samples, self.path = samples, path
        self.columns: list[tuple[str, np.ndarray]] = []  # names of moments, and their images
        self.is_over = False

    def add(self, moment: str) -> None:
        """Draw samples. They replace those of the same moment.

        If they differ from the first ones in number or size, they are left out from now on.
        """
        if self.is_over:
            return
        images = as_images(self.samples(), "Live(samples=...)")[:_SAMPLES, ..., :3]
        first = self.columns[0][1] if self.columns else images
        if images.shape[:3] != first.shape[:3]:
            self.is_over = True
            _warn(images.shape, first.shape)
            return
        self.columns = [column for column in self.columns if column[0] != moment]
        self.columns.append((moment, images))
        if len(self.columns) > 2 * _MOMENTS:
            self.columns = [*self.columns[:-1:2], self.columns[-1]]
        if self.path is not None:
            self._save(self.path)

    def shown(self) -> list[tuple[str, np.ndarray]]:
        """Return the columns to show, spread evenly over the run. The last is the newest."""
        count = min(_MOMENTS, len(self.columns))
        places = np.linspace(0, len(self.columns) - 1, count).round().astype(int)
        return [self.columns[place] for place in places]

    @property
    def aspect(self) -> float:
        """The height of the whole strip, divided by its width."""
        number, height, width, _ = self.columns[0][1].shape
        return number * (height + _GAP) / ((width + _GAP) * _MOMENTS)

    def draw(self, axes: Any) -> None:
        """Draw the strip on the axes of matplotlib. Later moments are blank."""
        columns = self.shown()
        axes.clear()
        axes.imshow(_side_by_side([images for _, images in columns]), aspect="equal")
        width = columns[0][1].shape[2] + _GAP
        places = [(i + 0.5) * width for i in range(len(columns))]
        axes.set_xticks(places, [name for name, _ in columns], fontsize=8)
        axes.set_yticks([])
        axes.tick_params(length=0, top=True, labeltop=True, bottom=False, labelbottom=False)
        axes.set_frame_on(False)

    def _save(self, path: Path) -> None:
        from matplotlib.figure import Figure

        width = 8.0
        height = width * self.aspect + 0.3
        figure = Figure(figsize=(width, height), dpi=100)
        self.draw(figure.add_axes((0.0, 0.0, 1.0, 1 - 0.3 / height)))
        figure.savefig(path)


def _warn(found: tuple[int, ...], first: tuple[int, ...]) -> None:
    sizes = ["{} images of {} x {} pixels".format(*shape) for shape in (found, first)]
    warnings.warn(
        f"Live leaves samples out from now on: its function returned {sizes[0]}, and {sizes[1]} "
        "at the start. Return the same number and size each time.",
        stacklevel=3,
    )


def _side_by_side(columns: list[Any]) -> np.ndarray:
    """Return the images of each moment in a column, as one image with three channels."""
    low, high = value_range_of(columns)
    padding = ((0, 0), (0, _GAP), (0, _GAP), (0, 0))
    found = []
    for images in columns:
        colored = np.broadcast_to(scaled(images, low, high), (*images.shape[:3], 3))
        found.append(np.concatenate(np.pad(colored, padding, constant_values=1.0)))
    blank = [np.ones_like(found[0])] * (_MOMENTS - len(found))
    return np.concatenate([*found, *blank], axis=1)

"""`Film`: samples of a model in the course of training, a row for each time they were drawn."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import keras
import numpy as np
from keras import ops

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

    def add(self, moment: str) -> None:
        """Draw samples. They replace those of the same moment."""
        images = stacked(self.samples())
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
        height, width, _ = self.columns[0][1].shape
        return height / (width * _MOMENTS)

    def draw(self, axes: Any) -> None:
        """Draw the strip on the axes of matplotlib. Later moments are blank."""
        columns = self.shown()
        images = [image for _, image in columns]
        blank = [np.full_like(images[0], 255)] * (_MOMENTS - len(images))
        axes.clear()
        axes.imshow(np.concatenate([*images, *blank], axis=1), aspect="equal")
        width = images[0].shape[1]
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


def stacked(images: Any) -> np.ndarray:
    """Return images one below the other, as an array of bytes: height, width, three channels.

    Raises:
        ValueError: for an array that is not a batch of images.
    """
    found = np.asarray(ops.convert_to_numpy(images))
    if found.ndim == 4 and keras.config.image_data_format() == "channels_first":
        found = np.moveaxis(found, 1, -1)
    if found.ndim == 3:
        found = found[..., None]
    if found.ndim != 4 or found.shape[-1] not in (1, 3) or not len(found):
        raise ValueError(
            f"The samples of Live have shape {np.shape(images)}. Return images of shape (number, "
            "height, width) or (number, height, width, channels), with 1 or 3 channels."
        )
    padding = ((0, 0), (0, _GAP), (0, _GAP), (0, 0))
    padded = np.pad(_bytes(found[:_SAMPLES]), padding, constant_values=255)
    column = np.concatenate(list(padded))
    return np.broadcast_to(column, (*column.shape[:2], 3))


def _bytes(images: np.ndarray) -> np.ndarray:
    """Return images as bytes: integers as they are, floats from 0 to 1, or from -1 to 1."""
    if images.dtype.kind in "iu":
        return images.clip(0, 255).astype("uint8")
    images = np.nan_to_num(images.astype("float32"))
    scaled = images / 2 + 0.5 if images.min() < 0 else images
    return (scaled * 255).clip(0, 255).round().astype("uint8")

"""`grid`: images as one array of bytes."""

import math
from collections.abc import Callable
from typing import Any

import numpy as np

from mlsystem.plot.sample_grid import as_images, scaled, value_range_of

_MOST = 64


def grid(samples: Callable[[], Any]) -> Any:
    """Return what a function draws as one image of shape (height, width, 3): at most 64 images."""
    images = as_images(samples(), "Log(samples=...)")[:_MOST, ..., :3]
    if not len(images):
        raise ValueError("Log(samples=...) got no images. Return at least one.")
    colored = np.broadcast_to(scaled(images, *value_range_of([images])), (*images.shape[:3], 3))
    columns = math.ceil(math.sqrt(len(images)))
    rows = math.ceil(len(images) / columns)
    blank = rows * columns - len(images)
    tiles = np.pad(colored, ((0, blank), (0, 1), (0, 1), (0, 0)), constant_values=1.0)
    _, height, width, _ = tiles.shape
    tiles = tiles.reshape(rows, columns, height, width, 3).swapaxes(1, 2)
    return (tiles.reshape(rows * height, columns * width, 3) * 255).round().astype("uint8")

"""`samples`: a grid of images."""

import math
import numbers
from collections.abc import Mapping, Sequence
from typing import Any

import keras
import numpy as np
from keras import ops

from mlsystem.plot.figures import new_figure


def samples(
    images: Any,
    columns: int | None = None,
    value_range: tuple[float, float] | None = None,
    figsize: tuple[float, float] | None = None,
) -> Any:
    """Draw images as a grid.

    ```python
    ml.plot.samples(gan.generator(noise)).savefig("samples.png", dpi=150)
    ml.plot.samples({"epoch 1": early, "epoch 20": late})  # one labelled row each
    ```

    Args:
        images: array or tensor of shape (n, height, width) or (n, height, width, channels), with 1,
            3 or 4 channels. With `keras.config.image_data_format() == "channels_first"`, the
            channels come before the height. A dict draws one row for each key.
        columns: number of images in a row. By default, the grid is about square. The rows of a
            dict have their own lengths.
        value_range: the numbers of black and white. By default (0, 255) for integers. For floats,
            the first that holds all numbers: (0, 1), (-1, 1), (0, 255), or their own range.
        figsize: width and height in inches. By default 0.8 inches an image.

    Returns:
        A matplotlib `Figure`. Save it with `figure.savefig("samples.png")`.

    Raises:
        ValueError: if the images have another shape, or if there are none. Also if `columns` is no
            whole number above 0, or `value_range` are not two numbers in ascending order.
        ImportError: if matplotlib is not installed.
    """
    _check(columns, value_range)
    named = images if isinstance(images, Mapping) else {"": images}
    rows: dict[Any, Any] = {name: as_images(given) for name, given in named.items()}
    if not rows or not all(map(len, rows.values())):
        raise ValueError("ml.plot.samples got no images.")
    low, high = value_range_of(list(rows.values())) if value_range is None else value_range
    if not isinstance(images, Mapping):
        rows = _split(rows[""], columns)
    width = max(map(len, rows.values()))
    labels = max(len(name) for name in map(str, rows)) if isinstance(images, Mapping) else 0
    figure = new_figure(figsize or (0.8 * width + 0.09 * labels, 0.8 * len(rows)))
    figure.get_layout_engine().set(w_pad=0.03, h_pad=0.03, wspace=0, hspace=0)
    grid = figure.subplots(len(rows), width, squeeze=False)
    for line, (name, row) in zip(grid, rows.items(), strict=True):
        for place, axes in enumerate(line):
            _place(axes, row[place : place + 1], low, high)
        if isinstance(images, Mapping):
            line[0].set_ylabel(name, rotation=0, ha="right", va="center")
    return figure


def _check(columns: Any, value_range: Any) -> None:
    is_count = isinstance(columns, numbers.Integral) and not isinstance(columns, bool)
    if columns is not None and not (is_count and columns > 0):
        raise ValueError(
            f"ml.plot.samples got columns={columns!r}. Give the number of images in a row, from 1."
        )
    if value_range is not None and not _is_range(value_range):
        raise ValueError(
            f"ml.plot.samples got value_range={value_range!r}. Give the numbers of black and of "
            "white, as (-1, 1): two finite numbers, the smaller one first."
        )


def _is_range(given: Any) -> bool:
    is_pair = isinstance(given, (Sequence, np.ndarray)) and len(given) == 2
    is_real = is_pair and all(isinstance(number, numbers.Real) for number in given)
    return is_real and bool(-math.inf < given[0] < given[1] < math.inf)


def as_images(given: Any, what: str = "ml.plot.samples") -> Any:
    """Return images as floats or integers of shape (n, height, width, channels)."""
    images = np.asarray(ops.convert_to_numpy(given))
    if images.ndim == 4 and keras.config.image_data_format() == "channels_first":
        images = np.moveaxis(images, 1, -1)
    images = images[..., None] if images.ndim == 3 else images
    if images.ndim != 4 or images.shape[-1] not in (1, 3, 4):
        raise ValueError(
            f"{what} got an array of shape {tuple(np.shape(given))}. Give images of shape "
            "(n, height, width) or (n, height, width, channels), with 1, 3 or 4 channels."
        )
    return images


def value_range_of(rows: list[Any]) -> tuple[float, float]:
    """Return the numbers of black and white."""
    if all(np.issubdtype(images.dtype, np.integer) for images in rows):
        return 0, 255
    finite = [images[np.isfinite(images)] for images in rows]
    low = min((float(v.min()) for v in finite if v.size), default=0.0)
    high = max((float(v.max()) for v in finite if v.size), default=1.0)
    usual = [(0, 1), (-1, 1), (0, 255)]
    return next((pair for pair in usual if _holds(pair, low, high)), (low, high))


def _holds(pair: tuple[float, float], low: float, high: float) -> bool:
    # A network may exceed the range of its data by a little.
    slack = 0.01 * min(pair[1] - pair[0], high - low)
    return pair[0] - slack <= low and high <= pair[1] + slack


def _split(images: Any, columns: int | None) -> dict[int, Any]:
    columns = min(columns or math.ceil(math.sqrt(len(images))), len(images))
    starts = range(0, len(images), columns)
    return {start: images[start : start + columns] for start in starts}


def scaled(images: Any, low: float, high: float) -> Any:
    """Return images as floats from 0 to 1."""
    return np.clip((images.astype("float32") - low) / max(high - low, 1e-12), 0, 1)


def _place(axes: Any, images: Any, low: float, high: float) -> None:
    """Draw one image, or none at the end of a short row."""
    axes.set(xticks=[], yticks=[])
    axes.spines[:].set_visible(False)
    for image in images:
        shown = scaled(image, low, high)
        axes.imshow(shown[..., 0] if shown.shape[-1] == 1 else shown, cmap="gray", vmin=0, vmax=1)

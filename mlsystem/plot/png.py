"""Shapes as a PNG file, drawn by matplotlib. It is imported when a file is written."""

import math
from pathlib import Path
from typing import Any

from mlsystem.plot.shapes import THEMES, Drawing, Polygon, Rect, Style, Text
from mlsystem.plot.svg import near

ARC = 0.448  # the place of the two points that make a curve a quarter of a circle
SCALE = 2.0  # pixels of the file per pixel of the picture


def write(drawing: Drawing, path: Path, dark: bool = False) -> None:
    """Write a drawing as PNG.

    Raises:
        ImportError: matplotlib is not installed.
    """
    figure, axes = _canvas(drawing)
    for shape in drawing.shapes:
        _draw(axes, shape, int(dark))
    figure.savefig(path, dpi=100 * SCALE, transparent=True)


def _canvas(drawing: Drawing) -> tuple[Any, Any]:
    """Return a figure without a window, whose coordinates are those of the picture."""
    try:
        from matplotlib.figure import Figure
    except ImportError as error:
        raise ImportError(
            "A picture is saved as PNG by matplotlib, which is not installed. Run `python -m pip "
            "install matplotlib`, or save it as .svg or .md."
        ) from error
    figure = Figure(figsize=(drawing.width / 100, drawing.height / 100))
    axes = figure.add_axes((0, 0, 1, 1))
    axes.set_xlim(0, drawing.width)
    axes.set_ylim(drawing.height, 0)
    axes.axis("off")
    return figure, axes


def _color(name: str, theme: int) -> str:
    return THEMES[name][theme] if name in THEMES else name or "none"


def _draw(axes: Any, shape: Any, theme: int) -> None:
    if isinstance(shape, Text):
        _text(axes, shape, theme)
        return
    if isinstance(shape, Rect):
        paths = [_rectangle(shape)]
    elif isinstance(shape, Polygon):
        paths = [_path([*shape.points, shape.points[0]], 0)]
    else:
        paths = [_path(piece, shape.radius) for piece in shape.pieces]
    for path in paths:
        axes.add_patch(_patch(path, shape.style, theme))


def _patch(path: Any, style: Style, theme: int) -> Any:
    from matplotlib.patches import PathPatch

    width = style.width * 0.72 if style.stroke else 0  # points per pixel
    dash = (0, [length / style.width for length in style.dash]) if style.dash else "solid"
    return PathPatch(
        path,
        facecolor=_color(style.fill, theme),
        edgecolor=_color(style.stroke, theme),
        linewidth=width,
        linestyle=dash,
        capstyle="butt",
        joinstyle="round",
    )


def _path(points: Any, radius: float) -> Any:
    from matplotlib.path import Path as Outline

    vertices, codes = [points[0]], [Outline.MOVETO]
    for before, corner, after in zip(points, points[1:], points[2:], strict=False):
        ends = near(corner, before, radius), near(corner, after, radius)
        pulls = (near(corner, end, ARC * math.dist(corner, end)) for end in ends)
        vertices += [ends[0], *pulls, ends[1]]
        codes += [Outline.LINETO, *[Outline.CURVE4] * 3]
    return Outline([*vertices, points[-1]], [*codes, Outline.LINETO])


def _rectangle(shape: Rect) -> Any:
    x1, y1, x2, y2 = shape.x, shape.y, shape.x + shape.width, shape.y + shape.height
    middle = (x1 + x2) / 2  # the outline starts where no corner is
    corners = [(middle, y1), (x2, y1), (x2, y2), (x1, y2), (x1, y1), (middle, y1)]
    return _path(corners, min(shape.radius, shape.width / 2, shape.height / 2))


def _text(axes: Any, shape: Text, theme: int) -> None:
    axes.text(
        shape.x,
        shape.y,
        shape.text.replace("$", r"\$"),
        fontsize=shape.size * 0.72,
        color=_color(shape.color, theme),
        fontweight="bold" if shape.bold else "normal",
        ha={"start": "left", "middle": "center", "end": "right"}[shape.anchor],
        va="baseline",
        family="DejaVu Sans",
    )

"""Marks of a picture: arrows, crosses and hatched areas."""

import math
from collections.abc import Sequence

from mlsystem.diagnostics.description import Route
from mlsystem.plot.colors import NEGATIVE
from mlsystem.plot.shapes import Line, Point, Polygon, Shape, Style

DASHED, DOTTED = (6.0, 4.0), (2.0, 4.0)
THIN, PLAIN, THICK = 1.4, 2.0, 7.0


def thickness(route: Route, most: float) -> float:
    """Return the width of an arrow: by the root of the norm, so that small norms can be told."""
    if route.norm is None or not most:
        return PLAIN
    return THIN + (THICK - THIN) * math.sqrt(route.norm / most)


def arrow(points: Sequence[Point], style: Style, hint: str = "") -> list[Shape]:
    """Return a line that ends in an arrow. A wide line has a larger head."""
    size = 7.0 + 1.2 * style.width
    (x1, y1), (x2, y2) = points[-2], points[-1]
    length = math.hypot(x2 - x1, y2 - y1) or 1.0
    dx, dy = (x2 - x1) / length, (y2 - y1) / length
    tip, half = (x2 - 1.5 * dx, y2 - 1.5 * dy), size * 0.42
    base = tip[0] - size * dx, tip[1] - size * dy
    head = [
        tip,
        (base[0] - half * dy, base[1] + half * dx),
        (base[0] + half * dy, base[1] - half * dx),
    ]
    end = base[0] + dx, base[1] + dy
    return [Line([[*points[:-1], end]], style, hint), Polygon(head, Style(style.stroke))]


def cross(x: float, y: float, size: float = 6.0) -> list[Shape]:
    """Return a red cross."""
    strokes = [
        [(x - size, y - size), (x + size, y + size)],
        [(x - size, y + size), (x + size, y - size)],
    ]
    return [Line(strokes, Style(stroke=NEGATIVE, width=3.0))]


def hatched(x: float, y: float, wide: float, high: float) -> Shape:
    """Return diagonal lines in a rectangle."""
    lines = []
    for start in range(10, int(wide + high), 10):
        x1, y1 = x + min(start, wide), y + max(0.0, start - wide)
        x2, y2 = x + max(0.0, start - high), y + min(start, high)
        lines.append([(x1 - 1, y1 + 1), (x2 + 1, y2 - 1)])
    return Line(lines, Style(stroke="hatch", width=1.0))

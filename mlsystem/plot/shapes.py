"""Shapes that both SVG and PNG draw. Colors are names of `THEMES` or hexadecimal."""

from collections.abc import Sequence
from dataclasses import dataclass, field

Point = tuple[float, float]

# Colors by name, on a light and on a dark background.
THEMES = {
    "page": ("#ffffff", "#14181d"),
    "box": ("#f7f9fb", "#1e242b"),
    "band": ("#f1f4f7", "#1a2026"),
    "ink": ("#1f2933", "#e6ebf0"),
    "muted": ("#5a6672", "#9ba7b3"),
    "line": ("#a9b4bf", "#66727e"),
    "hatch": ("#dbe1e7", "#343d47"),
    "rule": ("#e4e9ee", "#2a323a"),
}


@dataclass(frozen=True)
class Style:
    """How a shape is filled and outlined. "" is for neither."""

    fill: str = ""
    stroke: str = ""
    width: float = 1.4
    dash: Sequence[float] = ()


@dataclass(frozen=True)
class Rect:
    """A rectangle with rounded corners."""

    x: float
    y: float
    width: float
    height: float
    radius: float
    style: Style
    hint: str = ""


@dataclass(frozen=True)
class Line:
    """Straight lines through some points, with rounded corners. `pieces` may be apart."""

    pieces: Sequence[Sequence[Point]]
    style: Style
    hint: str = ""
    radius: float = 7.0


@dataclass(frozen=True)
class Polygon:
    """A filled polygon, such as the head of an arrow."""

    points: Sequence[Point]
    style: Style


@dataclass(frozen=True)
class Text:
    """A line of text. `anchor` is start, middle or end."""

    x: float
    y: float
    text: str
    size: float
    color: str = "ink"
    bold: bool = False
    anchor: str = "start"


Shape = Rect | Line | Polygon | Text


@dataclass
class Drawing:
    """Shapes from back to front, and the size of the picture in pixels."""

    width: float
    height: float
    shapes: list[Shape] = field(default_factory=list)
    title: str = ""

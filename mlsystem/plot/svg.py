"""Shapes as SVG text. The colors follow the reader's light or dark mode."""

import math
from collections.abc import Sequence
from xml.sax.saxutils import escape, quoteattr

from mlsystem.plot.shapes import THEMES, Drawing, Line, Point, Polygon, Rect, Shape, Style, Text

FONT = "system-ui, -apple-system, 'Segoe UI', Helvetica, Arial, 'DejaVu Sans', sans-serif"
SCOPE = "mlsystem-picture"  # styles inside an SVG hold for the whole page around it


def svg(drawing: Drawing) -> str:
    """Return a drawing as SVG."""
    size = f'width="{_n(drawing.width)}" height="{_n(drawing.height)}"'
    view = f'viewBox="0 0 {_n(drawing.width)} {_n(drawing.height)}"'
    head = f'<svg xmlns="http://www.w3.org/2000/svg" {size} {view} class="{SCOPE}" role="img"'
    body = "\n".join(_shape(shape) for shape in drawing.shapes)
    title = f"<title>{escape(drawing.title)}</title>"
    return f'{head} style="max-width:100%;height:auto">\n{title}\n{_styles()}\n{body}\n</svg>\n'


def _styles() -> str:
    """Return the colors as classes: `f-ink` fills, `s-ink` outlines."""
    light, dark = (_rules(i) for i in (0, 1))
    text = f".{SCOPE} text{{font-family:{FONT}}}"
    return f"<style>{text}{light}@media (prefers-color-scheme:dark){{{dark}}}</style>"


def _rules(theme: int) -> str:
    return "".join(
        f".{SCOPE} .f-{name}{{fill:{colors[theme]}}}.{SCOPE} .s-{name}{{stroke:{colors[theme]}}}"
        for name, colors in THEMES.items()
    )


def _n(value: float) -> str:
    return f"{value:.1f}".rstrip("0").rstrip(".")


def _shape(shape: Shape) -> str:
    if isinstance(shape, Rect):
        place = f'x="{_n(shape.x)}" y="{_n(shape.y)}"'
        size = f'width="{_n(shape.width)}" height="{_n(shape.height)}" rx="{_n(shape.radius)}"'
        return _element("rect", f"{place} {size} {_style(shape.style)}", shape.hint)
    if isinstance(shape, Line):
        path = " ".join(rounded(piece, shape.radius) for piece in shape.pieces)
        return _element("path", f'd="{path}" {_style(shape.style)}', shape.hint)
    if isinstance(shape, Polygon):
        points = " ".join(f"{_n(x)},{_n(y)}" for x, y in shape.points)
        return f'<polygon points="{points}" {_style(shape.style)}/>'
    return _text(shape)


def _element(name: str, attributes: str, hint: str) -> str:
    if not hint:
        return f"<{name} {attributes}/>"
    return f"<{name} {attributes}><title>{escape(hint)}</title></{name}>"


def _text(shape: Text) -> str:
    bold = ' font-weight="700"' if shape.bold else ""
    anchor = "" if shape.anchor == "start" else f' text-anchor="{shape.anchor}"'
    size = f'x="{_n(shape.x)}" y="{_n(shape.y)}" font-size="{_n(shape.size)}"'
    fill = _paint("f", "fill", shape.color)
    return f"<text {size}{bold}{anchor} {fill}>{escape(shape.text)}</text>"


def _paint(prefix: str, attribute: str, color: str) -> str:
    if not color:
        return f'{attribute}="none"'
    return f'class="{prefix}-{color}"' if color in THEMES else f"{attribute}={quoteattr(color)}"


def _style(style: Style) -> str:
    parts = [_paint("f", "fill", style.fill), _paint("s", "stroke", style.stroke)]
    classes = [part[7:-1] for part in parts if part.startswith("class")]
    found = [part for part in parts if not part.startswith("class")]
    if classes:
        found.append(f'class="{" ".join(classes)}"')
    if style.stroke:
        found.append(f'stroke-width="{_n(style.width)}"')
        found.append('stroke-linecap="round"' if not style.dash else "")
    if style.dash:
        found.append(f'stroke-dasharray="{" ".join(map(_n, style.dash))}"')
    return " ".join(part for part in found if part)


def rounded(points: Sequence[Point], radius: float) -> str:
    """Return a path through some points, with round corners."""
    found = [f"M{_n(points[0][0])} {_n(points[0][1])}"]
    for before, corner, after in zip(points, points[1:], points[2:], strict=False):
        one, two = near(corner, before, radius), near(corner, after, radius)
        found.append(f"L{_n(one[0])} {_n(one[1])}")
        found.append(f"Q{_n(corner[0])} {_n(corner[1])} {_n(two[0])} {_n(two[1])}")
    return " ".join([*found, f"L{_n(points[-1][0])} {_n(points[-1][1])}"])


def near(corner: Point, other: Point, radius: float) -> Point:
    """Return the point at some distance from a corner towards another, half way at most."""
    length = math.dist(corner, other)
    share = min(radius, length / 2) / length if length else 0.0
    return corner[0] + share * (other[0] - corner[0]), corner[1] + share * (other[1] - corner[1])

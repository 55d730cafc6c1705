"""The legend of a picture: only what occurs in it."""

from collections.abc import Callable, Iterator

from mlsystem.diagnostics.description import COPY, FROZEN, Description
from mlsystem.plot.boxes import MARGIN, SMALL
from mlsystem.plot.colors import NEGATIVE, NEUTRAL
from mlsystem.plot.marks import DASHED, DOTTED, PLAIN, THIN, arrow, cross, hatched
from mlsystem.plot.shapes import Line, Rect, Shape, Style, Text
from mlsystem.plot.text_width import width

SAMPLE, ROW = 34.0, 22.0  # the width of a sample, and the height of a row
Sample = Callable[[float, float], list[Shape]]


def legend(facts: Description, wide: float, y: float) -> tuple[list[Shape], float]:
    """Return the legend below a picture, and the height with it."""
    entries = list(_entries(facts))
    if not entries:
        return [], y
    shapes: list[Shape] = [Line([[(MARGIN, y), (wide - MARGIN, y)]], Style(stroke="rule", width=1))]
    x, y = MARGIN, y + ROW
    for sample, text in entries:
        needed = SAMPLE + 10 + width(text, SMALL - 0.5)
        if x > MARGIN and x + needed > wide - MARGIN:
            x, y = MARGIN, y + ROW
        shapes += sample(x, y - 4)
        shapes.append(Text(x + SAMPLE + 8, y, text, SMALL - 0.5, "muted"))
        x += needed + 22
    return shapes, y + 18


def _entries(facts: Description) -> Iterator[tuple[Sample, str]]:
    """Yield each entry: a function that draws a sample at a place, and the text."""
    routes = facts.routes
    if facts.edges:
        yield _arrow(Style(stroke="line", width=THIN)), "forward pass"
    if routes:
        width_is = ", width = norm" if facts.is_measured else ""
        yield _arrow(Style(stroke=NEUTRAL, width=PLAIN)), f"gradient of a loss × weight{width_is}"
    if any(route.is_negative for route in routes):
        yield _arrow(Style(stroke=NEGATIVE, width=PLAIN)), "negative weight"
    if any(route.moves for route in routes):
        yield _arrow(Style(stroke=NEUTRAL, width=PLAIN, dash=DASHED)), "weight that moves"
    if any(route.is_dead for route in routes):
        yield (lambda x, y: cross(x + SAMPLE / 2, y, 5.0)), "no gradient arrives"
    if any(model.kind == COPY for model in facts.models):
        yield _arrow(Style(stroke=NEUTRAL, width=THIN, dash=DOTTED)), "moving average"
    if any(model.kind == FROZEN and model.weights for model in facts.models):
        yield _frozen, "frozen"


def _arrow(style: Style) -> Sample:
    return lambda x, y: arrow([(x, y), (x + SAMPLE, y)], style)


def _frozen(x: float, y: float) -> list[Shape]:
    box = (x + 6, y - 7, SAMPLE - 12, 14.0)
    return [hatched(*box), Rect(*box, 3, Style("", NEUTRAL, 1.4))]

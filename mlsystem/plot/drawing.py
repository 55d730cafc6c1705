"""From a layout to shapes: colors, line styles, arrows, badges and the legend."""

from collections.abc import Sequence

from mlsystem.diagnostics.description import COPY, FROZEN, Description, Route
from mlsystem.plot.box_text import subtitle
from mlsystem.plot.boxes import BADGE, BODY, FRAME, LINE, MARGIN, NAME, PILL, SMALL, TAB, Box
from mlsystem.plot.colors import NEGATIVE, NEUTRAL, PALETTE, model_colors
from mlsystem.plot.layout import Label, Layout, layout
from mlsystem.plot.legend import legend
from mlsystem.plot.links import FOLLOWS, FORWARD, GRADIENT
from mlsystem.plot.marks import DASHED, DOTTED, PLAIN, THIN, arrow, cross, hatched, thickness
from mlsystem.plot.shapes import Drawing, Line, Polygon, Rect, Shape, Style, Text
from mlsystem.plot.text_width import shortened, width
from mlsystem.plot.trunks import homes
from mlsystem.plot.wires import Wire


def draw(facts: Description) -> Drawing:
    """Return the picture of a system as shapes."""
    places, colors = layout(facts), colors_of(facts)
    parts: list[Shape] = [
        *_bands(places),
        *_frames(places),
        *_wires(facts, places, colors),
        *(s for label in places.labels for s in _label(label, colors)),
        *(s for n, box in places.boxes.models.items() for s in _model(n, box, facts, colors)),
        *(s for box in places.boxes.inputs.values() for s in _input(box)),
        *(s for n, box in places.boxes.losses.items() for s in _loss(n, box, colors)),
    ]
    title, wide = _title(facts, places.width)
    key, height = legend(facts, wide, places.height)
    back = Rect(0, 0, wide, height, 10, Style("page"))
    return Drawing(wide, height, [back, *title, *_headings(places), *parts, *key], facts.title)


def colors_of(facts: Description) -> dict[str, str]:
    """Return the color of each trained model, and of each loss.

    A loss has the color of its own model. Other losses have the colors that no model has.
    """
    trained = [f"model {model.name}" for model in facts.models if model.trained]
    own = homes(facts)
    at_home = {f"loss {loss.name}": own.get(loss.name) for loss in facts.losses}
    others = [loss for loss, model in at_home.items() if model is None]
    free = max(0, len(PALETTE) - len(trained))
    colors = model_colors([*trained, *others[:free]])
    colors |= {
        loss: colors.get(f"model {model}", NEUTRAL) for loss, model in at_home.items() if model
    }
    every = [*(f"model {model.name}" for model in facts.models), *at_home]
    return {name: colors.get(name, NEUTRAL) for name in every}


# Text around the picture --------------------------------------------------------------------


def _title(facts: Description, wide: float) -> tuple[list[Shape], float]:
    text = "  ·  ".join(subtitle(facts))
    needed = max(width(facts.title, 17, bold=True), width(text, 12)) + 2 * MARGIN
    shapes: list[Shape] = [Text(MARGIN, 33, facts.title, 17, bold=True)]
    if text:
        shapes.append(Text(MARGIN, 53, text, 12, "muted"))
    return shapes, max(wide, needed, 460.0)


def _headings(places: Layout) -> list[Shape]:
    return [Text(x, BODY - 16, text, SMALL, "muted") for text, x in places.headings]


def _bands(places: Layout) -> list[Shape]:
    found: list[Shape] = []
    for name, x, wide in places.bands:
        high = places.boxes.bottom - BODY + 16
        found.append(Rect(x, BODY - 8, wide, high, 6, Style("band")))
        found.append(Text(x + wide / 2, BODY - 16, name, SMALL, "muted", anchor="middle"))
    return found


def _frames(places: Layout) -> list[Shape]:
    found: list[Shape] = []
    for box in places.boxes.frames.values():
        style = Style(stroke="line", dash=(4, 3), width=1.2)
        found.append(Rect(box.x, box.y, box.width, box.height, 10, style))
        room = box.width / (2 if _is_entered(box, places.wires) else 1) - FRAME - 6
        name = shortened(box.name, SMALL, room, bold=True)
        found.append(Text(box.x + FRAME, box.y + 16, name, SMALL, "muted", bold=True))
    return found


def _is_entered(frame: Box, wires: Sequence[Wire]) -> bool:
    """Return whether the arrow from a model above passes the name of a frame, in its middle."""
    ends = [(wire.points[0], wire.points[-1]) for wire in wires]
    return any(
        x == to_x and frame.x < x < frame.right and y < frame.y + TAB and to_y > frame.y
        for (x, y), (to_x, to_y) in ends
    )


# Boxes --------------------------------------------------------------------------------------


def _model(name: str, box: Box, facts: Description, colors: dict[str, str]) -> list[Shape]:
    model, color = facts.by_name[name], colors[f"model {name}"]
    dash = DOTTED if model.kind == COPY else ()
    outline = Style("box", color, 1.8, dash)
    hint = f"{name}: {', '.join([*box.lines, *model.badges])}"
    found: list[Shape] = [Rect(box.x, box.y, box.width, box.height, 8, outline, hint)]
    if model.kind == FROZEN and model.weights:
        found.append(hatched(box.x, box.y, box.width, box.height))
        found.append(Rect(box.x, box.y, box.width, box.height, 8, Style("", color, 1.8)))
    if model.trained:
        found.append(_bar(box, color))
    x, room = box.x + 14, box.width - 24
    title = shortened(box.name, NAME, room, bold=True)
    found.append(Text(x, box.y + 26, title, NAME, bold=True))
    y = box.y + 44
    for line in box.lines:
        found.append(Text(x, y, shortened(line, SMALL, room), SMALL, "muted"))
        y += LINE
    for badge in model.badges:
        found += _badge(x, y - 9, shortened(badge, SMALL - 1, room - 12), color)
        y += BADGE
    return found


def _bar(box: Box, color: str) -> Shape:
    """Return the colored bar at the left side of a trained model."""
    x, y, low = box.x, box.y, box.bottom
    points = [
        (x, y + 8),
        (x + 2, y + 2.5),
        (x + 5, y),
        (x + 5, low),
        (x + 2, low - 2.5),
        (x, low - 8),
    ]
    return Polygon(points, Style(color))


def _badge(x: float, y: float, text: str, color: str) -> list[Shape]:
    wide = width(text, SMALL - 1) + 14
    style = Style("page", color, 1.0)
    return [Rect(x, y, wide, 16, 8, style), Text(x + 7, y + 11.8, text, SMALL - 1, "ink")]


def _input(box: Box) -> list[Shape]:
    middle = box.y + box.height / 2 + 4
    return [
        Rect(box.x, box.y, box.width, box.height, box.height / 2, Style("page", "line", 1.4)),
        Text(box.x + box.width / 2, middle, box.name, SMALL, anchor="middle"),
    ]


def _loss(name: str, box: Box, colors: dict[str, str]) -> list[Shape]:
    style = Style("page", colors[f"loss {name}"], 2.0)
    middle = box.x + box.width / 2
    y = box.y + 4 + (box.height - LINE * len(box.lines)) / 2
    found: list[Shape] = [
        Rect(box.x, box.y, box.width, box.height, 20, style, f"the loss {name}"),
        Text(middle, y, box.name, NAME - 1, bold=True, anchor="middle"),
    ]
    for line in box.lines:
        y += LINE
        found.append(Text(middle, y, line, SMALL, "muted", anchor="middle"))
    return found


# Lines --------------------------------------------------------------------------------------


def _wires(facts: Description, places: Layout, colors: dict[str, str]) -> list[Shape]:
    most = max([route.norm or 0.0 for route in facts.routes], default=0.0)
    styled = [(wire, _style(wire, colors, most)) for wire in places.wires]
    styled.sort(key=lambda one: (one[0].kind == GRADIENT, one[0].route is not None))
    found: list[Shape] = []
    for wire, style in styled:
        found += arrow(wire.points, style, _hint(wire)) if wire.has_arrow else [_line(wire, style)]
    return found


def _line(wire: Wire, style: Style) -> Shape:
    return Line([wire.points], style)


def _hint(wire: Wire) -> str:
    if wire.route is None:
        return ""
    return hint(wire.route, wire.loss or "several losses")


def hint(route: Route, loss: str) -> str:
    """Return a route in words."""
    moves = f", moved by {route.moves}" if route.moves else ""
    norm = "" if route.norm is None else f", gradient norm {route.norm:.3g}"
    return f"{route.model} follows {loss} {route.weight}{moves}{norm}"


def _style(wire: Wire, colors: dict[str, str], most: float) -> Style:
    if wire.kind == FORWARD:
        return Style(stroke="line", width=THIN)
    if wire.kind == FOLLOWS:
        return Style(stroke=NEUTRAL, width=THIN, dash=DOTTED)
    color = colors.get(f"loss {wire.loss}", NEUTRAL)
    route = wire.route
    if route is None:
        return Style(stroke=color, width=PLAIN)
    color = NEGATIVE if route.is_negative or route.is_dead else color
    return Style(stroke=color, width=thickness(route, most), dash=DASHED if route.moves else ())


def _label(label: Label, colors: dict[str, str]) -> list[Shape]:
    route = label.route
    color = colors.get(f"loss {label.loss}", NEUTRAL)
    color = NEGATIVE if route.is_negative or route.is_dead else color
    x, y = label.x - label.width / 2, label.y - PILL / 2
    dash = (3.0, 2.0) if route.moves else ()
    found: list[Shape] = [
        Rect(
            x,
            y,
            label.width,
            PILL,
            PILL / 2,
            Style("page", color, 1.2, dash),
            hint(route, label.loss),
        ),
        Text(label.x, label.y + 4, label.text, SMALL - 0.5, bold=True, anchor="middle"),
    ]
    return [*found, *cross(x - 11, label.y)] if route.is_dead else found

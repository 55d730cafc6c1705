"""The lines of a picture: forward passes in grey, gradients back to the models that follow them."""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from typing import Any

from mlsystem.diagnostics.description import COPY, NOISE, Description, Route
from mlsystem.plot.box_text import pill_text
from mlsystem.plot.lanes import lanes
from mlsystem.plot.layout import MARGIN, SMALL, Box, Columns, columns, fed_from_above
from mlsystem.plot.text_width import width

LANE = 13.0  # between two lanes
ARROW = 24.0  # the room for the end of a line, beside a box
BEND = 9.0  # how far the part of a route reaches into the line of its loss
FORWARD, FOLLOWS, GRADIENT = "forward", "follows", "gradient"

Point = tuple[float, float]


@dataclass
class Wire:
    """A line through some points.

    Attributes:
        points: the corners.
        kind: FORWARD, FOLLOWS (a copy follows its source) or GRADIENT.
        loss: the loss of a gradient. "" for several losses.
        route: the route of a gradient. None for a part that several routes share.
    """

    points: Sequence[Point]
    kind: str
    loss: str = ""
    route: Route | None = None
    has_arrow: bool = True


@dataclass
class Label:
    """The weight of a route, beside the model that follows it. `x` and `y` are its middle."""

    x: float
    y: float
    width: float
    text: str
    loss: str
    route: Route


@dataclass
class Layout:
    """A picture: all boxes, lines and labels in pixels, from the upper left corner.

    `bands` are the columns of the phases: name, x and width. `headings` are names of columns.
    """

    boxes: Columns
    wires: list[Wire] = field(default_factory=list)
    labels: list[Label] = field(default_factory=list)
    bands: list[tuple[str, float, float]] = field(default_factory=list)
    headings: list[tuple[str, float]] = field(default_factory=list)
    width: float = 0.0
    height: float = 0.0


@dataclass(frozen=True, eq=False)
class _Link:
    """A line between two boxes, from the side `leaves` to the side `enters`.

    Links with the same key share a lane. `phase` is the column of the label of a gradient.
    """

    key: Any
    kind: str
    start: Box
    leaves: str
    y: float
    end: Box
    enters: str
    to_y: float
    loss: str = ""
    route: Route | None = None
    phase: int = 0

    def points(self, lane: float) -> list[Point]:
        """Return the corners of the line, with its vertical part in a lane."""
        start = (getattr(self.start, self.leaves), self.y)
        end = (getattr(self.end, self.enters), self.to_y)
        if self.is_straight:
            return [start, end]
        return [start, (lane, self.y), (lane, self.to_y), end]

    @property
    def is_straight(self) -> bool:
        """Whether the line needs no lane."""
        return self.leaves != self.enters and abs(self.y - self.to_y) < 0.5


def layout(facts: Description) -> Layout:
    """Return the layout of the picture of a system."""
    boxes = columns(facts)
    left, right = _left(facts, boxes), _right(facts, boxes)
    (left_lane, left_count), (right_lane, right_count) = _lanes(left), _lanes(right)
    found = Layout(boxes)
    pad = max([0.0, *(-frame.x for frame in boxes.frames.values())])

    pills = max((box.width for box in boxes.inputs.values()), default=0.0)
    x = MARGIN + pills + pad + (LANE * left_count + ARROW if left else 0.0)
    for box in boxes.inputs.values():
        box.x = MARGIN
    for frame in boxes.frames.values():
        frame.x += x
    for box in boxes.models.values():
        box.x = x
    first_lane = x - pad - ARROW
    for key, same in _by_key(left).items():
        found.wires += _merged(same, first_lane - LANE * left_lane[key])
    found.wires += _from_above(facts, boxes)

    x = max((box.right for box in boxes.models.values()), default=x) + pad
    columns_x, x = _bands(facts, found, right, x + ARROW)
    x += LANE * right_count + ARROW
    for box in boxes.losses.values():
        box.x = x
    place = {key: x - ARROW - LANE * lane for key, lane in right_lane.items()}
    found.wires += _right_wires(right, place)
    found.labels = _labels(facts, right, columns_x)

    right_side = max([x, *(box.right for box in boxes.losses.values())])
    found.width, found.height = right_side + MARGIN, boxes.bottom + MARGIN
    found.headings = _headings(boxes, x if boxes.losses else None)
    return found


def _lanes(links: Sequence[_Link]) -> tuple[dict[Any, int], int]:
    """Return the lane of each key, and the number of lanes."""
    spans: dict[Any, list[float]] = {}
    for link in links:
        ends = spans.setdefault(link.key, [])
        ends += [link.y, link.to_y]
    bent = {key: ys for key, ys in spans.items() if not _is_straight(links, key)}
    found = lanes([(min(ys), max(ys)) for ys in bent.values()])
    return dict.fromkeys(spans, 0) | dict(zip(bent, found, strict=True)), max(found, default=-1) + 1


def _is_straight(links: Iterable[_Link], key: Any) -> bool:
    return all(link.is_straight for link in links if link.key == key)


# Left of the models: forward ----------------------------------------------------------------


def _left(facts: Description, boxes: Columns) -> list[_Link]:
    """Return the lines from inputs to models, and from models to models that are not below."""
    found = []
    for i, model in enumerate(facts.models):
        box, above = boxes.models[model.name], fed_from_above(facts, i)
        for source in facts.feeds(model.name):
            if source != above:
                found.append(_feed(facts, boxes, source, model.name))
        if model.kind == COPY and model.source in boxes.models:
            of = boxes.models[model.source]
            key, y = (FOLLOWS, model.source), of.port("followed")
            found.append(_Link(key, FOLLOWS, of, "x", y, box, "x", box.port("follows")))
    return found


def _feed(facts: Description, boxes: Columns, source: str, model: str) -> _Link:
    box = boxes.models[model]
    y = box.port(("in", source))
    if source in facts.by_name:
        of = boxes.models[source]
        return _Link(source, FORWARD, of, "x", of.port("feeds"), box, "x", y)
    key = next(key for key in boxes.inputs if key[0] == source)
    key = (source, model) if source == NOISE else key
    pill = boxes.inputs[key]
    return _Link(key, FORWARD, pill, "right", pill.y + pill.height / 2, box, "x", y)


def _from_above(facts: Description, boxes: Columns) -> list[Wire]:
    """Return the arrows from a model to the model just below."""
    found = []
    for i, model in enumerate(facts.models):
        if above := fed_from_above(facts, i):
            one, two = boxes.models[above], boxes.models[model.name]
            x = one.x + one.width / 2
            found.append(Wire([(x, one.bottom), (x, two.y)], FORWARD))
    return found


# Right of the models: losses ----------------------------------------------------------------


def _right(facts: Description, boxes: Columns) -> list[_Link]:
    """Return the lines from models to the losses that read them, and back to the followers."""
    found = []
    for loss in facts.losses:
        box = boxes.losses[loss.name]
        for name in loss.models:
            of = boxes.models[name]
            key, y = ("read", loss.name), of.port("out")
            found.append(_Link(key, FORWARD, of, "right", y, box, "x", box.port("in")))
    for trunk in boxes.trunks:
        for loss_name in trunk.losses:
            box = boxes.losses[loss_name]
            for route in trunk.routes:
                of = boxes.models[route.model]
                for phase in boxes.phases_of[route.model]:
                    y = of.port(("gradient", trunk.losses, phase))
                    found.append(
                        _Link(
                            *(trunk.losses, GRADIENT, box, "x", box.port("out"), of, "right", y),
                            loss_name if len(trunk.losses) == 1 else "",
                            route,
                            phase,
                        )
                    )
    return found


def _right_wires(links: Sequence[_Link], place: dict[Any, float]) -> list[Wire]:
    found = []
    for key, same in _by_key(links).items():
        if same[0].kind == FORWARD or len(same) == 1:
            found += _merged(same, place[key])
        else:
            found += _tapped(same, place[key])
    return found


def _by_key(links: Iterable[_Link]) -> dict[Any, list[_Link]]:
    found: dict[Any, list[_Link]] = {}
    for link in links:
        found.setdefault(link.key, []).append(link)
    return found


def _merged(links: Sequence[_Link], lane: float) -> list[Wire]:
    """Return lines that leave one box or enter one box. Each part is drawn once.

    The farthest line up and the farthest line down are whole. The others branch off.
    """
    whole, found = _farthest(links), []
    for link in links:
        points, branches = link.points(lane), len({other.y for other in links}) == 1
        near, far = (link.y, link.to_y) if branches else (link.to_y, link.y)
        side = BEND if near > far else -BEND
        if link not in whole and len(points) == 4:
            points = (
                [(lane, far + side), *points[2:]] if branches else [*points[:2], (lane, far + side)]
            )
        has_arrow = branches or link in whole
        found.append(Wire(points, link.kind, link.loss, link.route, has_arrow))
    return found


def _farthest(links: Sequence[_Link]) -> list[_Link]:
    """Return the links with the longest way up and down, and those that are straight."""
    steps = [link.to_y - link.y for link in links]
    up, down = links[steps.index(min(steps))], links[steps.index(max(steps))]
    ends = [link for link in (up, down) if link is up or link.to_y != up.to_y or link.y != up.y]
    one_sided = min(steps) * max(steps) > 0
    farthest = max(ends, key=lambda link: abs(link.to_y - link.y))
    return [
        link for link in links if link.is_straight or link in ([farthest] if one_sided else ends)
    ]


def _tapped(links: Sequence[_Link], lane: float) -> list[Wire]:
    """Return the line of a loss, or of several, and a last part to each model.

    The last part has the style of its route.
    """
    out = sum(link.y for link in links) / len(links)
    found = []
    for link in links:
        side = 0.0 if abs(out - link.to_y) < BEND else BEND if out > link.to_y else -BEND
        corner, end = (lane, link.to_y), link.points(lane)[-1]
        last = [(lane, link.to_y + side), corner, end] if side else [corner, end]
        found.append(Wire(last, GRADIENT, link.loss, link.route))
        if link in _farthest([other for other in links if other.start is link.start]):
            start = link.points(lane)[0]
            shared = [start, (lane, link.y), (lane, link.to_y + side)]
            found.append(Wire(shared, GRADIENT, link.loss, has_arrow=False))
    return found


def _bands(
    facts: Description, found: Layout, links: Sequence[_Link], x: float
) -> tuple[list[float], float]:
    """Return the middle of each column of labels, one per phase, and the x after the last."""
    middles, phases = [], found.boxes.phases
    for phase in range(max(1, len(phases))):
        texts = [
            _text(facts, link) for link in links if link.kind == GRADIENT and link.phase == phase
        ]
        wide = max([0.0, *(width(text, SMALL - 0.5) + 16 for text in texts)])
        if phases:
            wide = max(wide + 12, width(phases[phase], SMALL) + 14)
            found.bands.append((phases[phase], x, wide))
        middles.append(x + wide / 2)
        x += wide + (4 if phases else 0)
    return middles, x + 10


def _text(facts: Description, link: _Link) -> str:
    assert link.route is not None
    bundled = len(link.key)
    return pill_text(link.route, bundled)


def _labels(facts: Description, links: Sequence[_Link], columns_x: Sequence[float]) -> list[Label]:
    found = {}
    for link in links:
        if link.kind == GRADIENT and link.route is not None:
            text = _text(facts, link)
            wide = width(text, SMALL - 0.5) + 16
            x = columns_x[link.phase]
            found[x, link.to_y] = Label(x, link.to_y, wide, text, link.loss, link.route)
    return list(found.values())


def _headings(boxes: Columns, losses_x: float | None) -> list[tuple[str, float]]:
    found = []
    if boxes.inputs:
        found.append(("inputs", MARGIN))
    if boxes.models:
        found.append(("models", next(iter(boxes.models.values())).x))
    if losses_x is not None:
        found.append(("losses", losses_x))
    return found

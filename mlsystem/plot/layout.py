"""Where everything in a picture goes: boxes, lines, labels and headings, in pixels."""

from collections.abc import Sequence
from dataclasses import dataclass, field

from mlsystem.diagnostics.description import Description, Route
from mlsystem.plot.box_text import pill_text
from mlsystem.plot.boxes import MARGIN, SMALL, Columns, columns
from mlsystem.plot.links import GRADIENT, Link, left_links, right_links
from mlsystem.plot.text_width import width
from mlsystem.plot.wires import Wire, from_above, lane_of, routed

LANE = 13.0  # between two lanes
ARROW = 24.0  # the room for the end of a line, beside a box


@dataclass
class Label:
    """The weight of a route, beside the model that follows it. `x` and `y` are its middle."""

    x: float
    y: float
    text: str
    route: Route
    loss: str = ""

    @property
    def width(self) -> float:
        """The width of the label."""
        return _width(self.text)


@dataclass
class Layout:
    """A picture: all boxes, lines and labels in pixels, from the upper left corner.

    Attributes:
        boxes: the boxes.
        wires: the lines.
        labels: the weights of the routes.
        bands: the columns of the phases: name, x and width.
        headings: the names of the columns, each with its x.
        width, height: the size.
    """

    boxes: Columns
    wires: list[Wire] = field(default_factory=list)
    labels: list[Label] = field(default_factory=list)
    bands: list[tuple[str, float, float]] = field(default_factory=list)
    headings: list[tuple[str, float]] = field(default_factory=list)
    width: float = 0.0
    height: float = 0.0


def layout(facts: Description) -> Layout:
    """Return the layout of the picture of a system."""
    boxes = columns(facts)
    found, right = Layout(boxes), right_links(facts, boxes)
    pad = max([0.0, *(-frame.x for frame in boxes.frames.values())])
    x = _place_models(facts, found, pad) + pad
    middles, x = _place_labels(found, right, x + ARROW)
    found.labels = [*_labels(right, middles), *_unreached(boxes, middles)]
    x = _place_losses(found, right, x)
    found.width, found.height = x + MARGIN, boxes.bottom + MARGIN
    found.headings = _headings(boxes)
    return found


def _place_models(facts: Description, found: Layout, pad: float) -> float:
    """Give inputs, models and frames their x, and draw the lines between. Return the right side."""
    boxes, links = found.boxes, left_links(facts, found.boxes)
    lane, count = lane_of(links)
    pills = max((box.width for box in boxes.inputs.values()), default=0.0)
    x = MARGIN + pills + pad + (LANE * count + ARROW if links else 0.0)
    for box in boxes.inputs.values():
        box.x = MARGIN
    for frame in boxes.frames.values():
        frame.x += x
    for box in boxes.models.values():
        box.x = x
    place = {key: x - pad - ARROW - LANE * i for key, i in lane.items()}
    found.wires += [*routed(links, place), *from_above(facts, boxes)]
    return max((box.right for box in boxes.models.values()), default=x)


def _place_losses(found: Layout, links: Sequence[Link], x: float) -> float:
    """Give the losses their x, and draw the lines to and from them. Return the right side."""
    lane, count = lane_of(links)
    x += LANE * count + ARROW
    for box in found.boxes.losses.values():
        box.x = x
    found.wires += routed(links, {key: x - ARROW - LANE * i for key, i in lane.items()})
    return max([x, *(box.right for box in found.boxes.losses.values())])


# Labels -------------------------------------------------------------------------------------


def _place_labels(found: Layout, links: Sequence[Link], x: float) -> tuple[list[float], float]:
    """Return the middle of each column of labels, one per phase, and the x after the last."""
    middles, phases = [], found.boxes.phases
    for i in range(max(1, len(phases))):
        texts = [_text(link) for link in links if link.kind == GRADIENT and link.phase == i]
        wide = max(
            map(_width, [*texts, *(["9 losses"] if found.boxes.unreached else [])]), default=0
        )
        if phases:
            wide = max(wide + 12, width(phases[i], SMALL) + 14)
            found.bands.append((phases[i], x, wide))
        middles.append(x + wide / 2)
        x += wide + (4 if phases else 0)
    return middles, x + 10


def _width(text: str) -> float:
    return width(text, SMALL - 0.5, bold=True) + 14


def _text(link: Link) -> str:
    assert link.route is not None
    return pill_text(link.route, bundled=len(link.key))


def _labels(links: Sequence[Link], middles: Sequence[float]) -> list[Label]:
    """Return the labels. Losses that share a line have one together."""
    found = {}
    for link in links:
        if link.route is not None:
            x = middles[link.phase]
            found[x, link.to_y] = Label(x, link.to_y, _text(link), link.route, link.loss)
    return list(found.values())


def _unreached(boxes: Columns, middles: Sequence[float]) -> list[Label]:
    """Return one label for many losses that do not reach a model."""
    return [
        Label(
            middles[boxes.phases_of[model][0]],
            boxes.models[model].port("unreached"),
            f"{number} losses",
            Route("many losses", model, norm=0.0),
        )
        for model, number in boxes.unreached.items()
    ]


def _headings(boxes: Columns) -> list[tuple[str, float]]:
    columns = {
        "inputs": list(boxes.inputs.values()),
        "models": list(boxes.models.values()),
        "losses": list(boxes.losses.values()),
    }
    return [(name, found[0].x) for name, found in columns.items() if found]

"""Which boxes of a picture a line connects, and at which height."""

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

from mlsystem.diagnostics.description import COPY, NOISE, Description, Route
from mlsystem.plot.boxes import Box, Columns, fed_from_above

FORWARD, FOLLOWS, GRADIENT = "forward", "follows", "gradient"

Point = tuple[float, float]


@dataclass(frozen=True, eq=False)
class Link:
    """A line between two boxes, from the side `leaves` to the side `enters` ("x" or "right").

    Attributes:
        key: links with the same key share a lane.
        kind: FORWARD, FOLLOWS (a copy follows its source) or GRADIENT.
        start, leaves, y: the first box, its side, and the height there.
        end, enters, to_y: the second box, its side, and the height there.
        loss: the loss of a gradient. "" for several losses.
        route: the route of a gradient.
        phase: the column of its label.
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


# Left of the models: forward ----------------------------------------------------------------


def left_links(facts: Description, boxes: Columns) -> list[Link]:
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
            found.append(Link(key, FOLLOWS, of, "x", y, box, "x", box.port("follows")))
    return found


def _feed(facts: Description, boxes: Columns, source: str, model: str) -> Link:
    box = boxes.models[model]
    y = box.port(("in", source))
    if source in facts.by_name:
        of = boxes.models[source]
        return Link(source, FORWARD, of, "x", of.port("feeds"), box, "x", y)
    key = next(key for key in boxes.inputs if key[0] == source)
    key = (source, model) if source == NOISE else key
    pill = boxes.inputs[key]
    return Link(key, FORWARD, pill, "right", pill.y + pill.height / 2, box, "x", y)


# Right of the models: losses ----------------------------------------------------------------


def right_links(facts: Description, boxes: Columns) -> list[Link]:
    """Return the lines from models to the losses that read them, and back to the followers."""
    return [*_reads(facts, boxes), *_gradients(boxes)]


def _reads(facts: Description, boxes: Columns) -> Iterator[Link]:
    for loss in facts.losses:
        box = boxes.losses[loss.name]
        for name in loss.models:
            of, key = boxes.models[name], ("read", loss.name)
            yield Link(key, FORWARD, of, "right", of.port("out"), box, "x", box.port("in"))


def _gradients(boxes: Columns) -> Iterator[Link]:
    for trunk in boxes.trunks:
        loss = trunk.losses[0] if len(trunk.losses) == 1 else ""
        for box in (boxes.losses[name] for name in trunk.losses):
            start = (trunk.losses, GRADIENT, box, "x", box.port("out"))
            for route in trunk.routes:
                of = boxes.models[route.model]
                for phase in boxes.phases_of[route.model]:
                    y = of.port(("gradient", trunk.losses, phase))
                    yield Link(*start, of, "right", y, loss, route, phase)

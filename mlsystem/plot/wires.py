"""The lines of a picture as points: several lines share a lane, and branch off it."""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any

from mlsystem.diagnostics.description import Description, Route
from mlsystem.plot.boxes import Columns, fed_from_above
from mlsystem.plot.lanes import lanes
from mlsystem.plot.links import FORWARD, GRADIENT, Link, Point

BEND = 9.0  # how far a branch reaches into the lane, and out of it


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


def routed(links: Sequence[Link], place: dict[Any, float]) -> list[Wire]:
    """Return the lines of some links, whose keys have lanes at the given x."""
    found = []
    for key, same in by_key(links).items():
        shares = same[0].kind == GRADIENT and len(same) > 1
        found += _tapped(same, place[key]) if shares else _merged(same, place[key])
    return found


def lane_of(links: Sequence[Link]) -> tuple[dict[Any, int], int]:
    """Return the lane of each key, and the number of lanes."""
    spans = {
        key: [y for link in same for y in (link.y, link.to_y)]
        for key, same in by_key(links).items()
    }
    bent = [key for key, same in by_key(links).items() if not all(one.is_straight for one in same)]
    found = lanes([(min(spans[key]), max(spans[key])) for key in bent])
    return dict.fromkeys(spans, 0) | dict(zip(bent, found, strict=True)), max(found, default=-1) + 1


def by_key(links: Iterable[Link]) -> dict[Any, list[Link]]:
    """Return the links that share each key."""
    found: dict[Any, list[Link]] = {}
    for link in links:
        found.setdefault(link.key, []).append(link)
    return found


def _merged(links: Sequence[Link], lane: float) -> list[Wire]:
    """Return lines that leave one box or enter one box. Each part is drawn once.

    The farthest line up and the farthest line down are whole. The others branch off.
    """
    whole, found = _farthest(links), []
    for link in links:
        points, branches = link.points(lane), len({other.y for other in links}) == 1
        near, far = (link.y, link.to_y) if branches else (link.to_y, link.y)
        side = BEND if near > far else -BEND
        if link not in whole:
            turn = (lane, far + side)
            points = [turn, *points[2:]] if branches else [*points[:2], turn]
        has_arrow = branches or link in whole
        found.append(Wire(points, link.kind, link.loss, link.route, has_arrow))
    return found


def _farthest(links: Sequence[Link]) -> list[Link]:
    """Return the links with the longest way up and down, and those that are straight."""
    up = [link for link in links if link.to_y < link.y and not link.is_straight]
    down = [link for link in links if link.to_y > link.y and not link.is_straight]
    ends = [max(side, key=lambda link: abs(link.to_y - link.y)) for side in (up, down) if side]
    return [*ends, *(link for link in links if link.is_straight)]


def _tapped(links: Sequence[Link], lane: float) -> list[Wire]:
    """Return the lines of a loss, or of several, to their followers.

    The part that routes share is plain. The last part of each has the style of its route.
    """
    out, found = sum(link.y for link in links) / len(links), []
    for link in links:
        start, end = link.points(lane)[0], link.points(lane)[-1]
        side = 0.0 if abs(out - link.to_y) < BEND else BEND if out > link.to_y else -BEND
        corner, tap = (lane, link.to_y), (lane - BEND, link.to_y)
        points = [(lane, link.to_y + side), corner] if side else [corner]
        if link in _farthest([other for other in links if other.start is link.start]):
            points = [start] if link.is_straight else [start, (lane, link.y), corner]
        found.append(Wire([*points, tap], GRADIENT, link.loss, has_arrow=False))
        found.append(Wire([tap, end], GRADIENT, link.loss, link.route))
    return found


def from_above(facts: Description, boxes: Columns) -> list[Wire]:
    """Return the arrows from a model to the model just below."""
    found = []
    for i, model in enumerate(facts.models):
        if above := fed_from_above(facts, i):
            one, two = boxes.models[above], boxes.models[model.name]
            x = one.x + one.width / 2
            found.append(Wire([(x, one.bottom), (x, two.y)], FORWARD))
    return found

"""Where each box of a picture goes. Plain Python: a `Description` in, numbers out.

Models stand in one column, in the order of `forward`. Inputs stand left of them, losses right.
Lines run in lanes between the columns, so that no line crosses a box. The weights of the routes
stand beside the boxes, left of the lanes, so that no other line crosses a label:

    inputs | lanes | models | weights, one column per phase | lanes | losses
"""

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

from mlsystem.diagnostics.description import COPY, NOISE, Description, ModelFacts
from mlsystem.plot.box_text import loss_lines, model_lines, phase_names
from mlsystem.plot.lanes import clear_of, spread
from mlsystem.plot.text_width import shortened, width
from mlsystem.plot.trunks import Trunk, by_row, homes, trunks, unreached

MARGIN = 24.0
BODY = 96.0  # the y of the first box, below the title and the headings
GAP = 32.0  # between two models
LINE = 16.0  # between two lines of text
BADGE = 20.0  # the height of a badge, with the space above it
PORT = 22.0  # between two lines that end at a box
PILL = 18.0  # the height of a label
FRAME = 12.0  # between a frame and its models
TAB = 22.0  # the height of the name of a frame
NAME, SMALL = 14.0, 11.5  # sizes of text


@dataclass
class Box:
    """A rectangle with a name and lines of text. Other boxes connect at its `ports`."""

    name: str
    x: float = 0.0
    y: float = 0.0
    width: float = 0.0
    height: float = 0.0
    lines: Sequence[str] = ()
    ports: dict[Any, float] = field(default_factory=dict)  # y, relative to the box

    @property
    def right(self) -> float:
        """The x of the right side."""
        return self.x + self.width

    @property
    def bottom(self) -> float:
        """The y of the lower side."""
        return self.y + self.height

    def port(self, key: Any) -> float:
        """Return the y at which a line ends."""
        return self.y + self.ports[key]


@dataclass(frozen=True)
class Columns:
    """The boxes of a picture, before their columns have an x.

    Attributes:
        models, losses, inputs: the boxes, by name. An input stands beside the model it feeds first.
        frames: the nested systems.
        trunks: the lines of gradients.
        unreached: the models that many losses do not reach, with the number of these losses.
        phases: the names of the phases. Empty if there is one.
        phases_of: for each model, the places of its phases.
    """

    models: dict[str, Box]
    losses: dict[str, Box]
    inputs: dict[tuple[str, str], Box]
    frames: dict[str, Box]
    trunks: Sequence[Trunk]
    unreached: dict[str, int]
    phases: Sequence[str]
    phases_of: dict[str, list[int]]

    @property
    def bottom(self) -> float:
        """The y of the lowest side."""
        boxes = [*self.models.values(), *self.losses.values(), *self.frames.values()]
        return max((box.bottom for box in boxes), default=BODY)


def columns(facts: Description) -> Columns:
    """Return the boxes of a picture with their y, heights and widths."""
    lines, phases = trunks(facts), phase_names(facts)
    phases_of = {model.name: _phases_of(facts, model.name) for model in facts.models}
    models = _models(facts, by_row(facts, lines), phases_of)
    _stack(models, facts.frames)
    inputs = _inputs(facts, models)
    frames = _frames(facts, models)
    losses = _losses(facts, models)
    return Columns(models, losses, inputs, frames, lines, unreached(facts), phases, phases_of)


def _phases_of(facts: Description, model: str) -> list[int]:
    """Return the places of the phases that update a model. The first, if there is one phase."""
    if len(facts.phases) < 2:
        return [0]
    return [i for i, (_, group) in enumerate(facts.phases) if model in group] or [0]


# Models -------------------------------------------------------------------------------------


def _models(
    facts: Description, trunks: Sequence[Trunk], phases_of: dict[str, list[int]]
) -> dict[str, Box]:
    """Return the boxes of the models, with ports for all lines."""
    found, dead = {}, unreached(facts)
    for i, model in enumerate(facts.models):
        box = Box(short_name(facts, model.name), lines=model_lines(model))
        left = _left_ports(facts, i, box)
        right = _right_ports(facts, box, model.name, trunks, phases_of[model.name])
        if model.name in dead:
            box.ports["unreached"] = right
            right += PORT
        text = 42 + LINE * len(box.lines) + BADGE * len(model.badges) + 2 * bool(model.badges)
        box.height = max(text, left, right)
        found[model.name] = box
    tabs = [2 * width(frame, SMALL, bold=True) for frame in facts.frames]
    widest = max([0.0, *tabs, *(_widest(box, facts.by_name[n]) for n, box in found.items())])
    for box in found.values():  # the arrow into a frame leaves half of its width for its name
        box.width = min(max(widest + 28, 150.0), 240.0)
    return found


def short_name(facts: Description, name: str) -> str:
    """Return the name of a model without the nested system around it, whose frame shows it."""
    around = [frame for frame in facts.frames if name.startswith(f"{frame}/")]
    return name.removeprefix(f"{max(around, key=len)}/") if around else name


def _widest(box: Box, model: ModelFacts) -> float:
    badges = [width(text, SMALL - 1) + 16 for text in model.badges]
    return max([width(box.name, NAME, bold=True), *(width(t, SMALL) for t in box.lines), *badges])


def fed_from_above(facts: Description, i: int) -> str | None:
    """Return the model just above, if it feeds the i-th model."""
    above = facts.models[i - 1].name if i else None
    return above if above in facts.feeds(facts.models[i].name) else None


def _left_ports(facts: Description, i: int, box: Box) -> float:
    """Give a model a port for each source, and ports to feed other models. Return the height."""
    model = facts.models[i]
    y, above = 22.0, fed_from_above(facts, i)
    for source in facts.feeds(model.name):
        if source != above:
            box.ports["in", source] = y
            y += 20.0 if source in facts.by_name else 28.0
    if model.kind == COPY and model.source in facts.by_name:
        box.ports["follows"] = y
        y += 20.0
    feeds = {target for source, target in facts.edges if source == model.name}
    below = facts.models[i + 1].name if i + 1 < len(facts.models) else None
    if feeds - {below}:
        box.ports["feeds"] = y
        y += 14.0
    if any(other.source == model.name for other in facts.models):
        box.ports["followed"] = y
        y += 14.0
    return y


def _right_ports(
    facts: Description, box: Box, name: str, trunks: Sequence[Trunk], phases: Sequence[int]
) -> float:
    """Give a model a port to the losses, and one for each route into it. Return the height."""
    own = homes(facts)
    if any(name in loss.models for loss in facts.losses):
        box.ports["out"] = 22.0
    y = 42.0
    mine = [t for t in trunks if any(route.model == name for route in t.routes)]
    mine.sort(key=lambda trunk: name not in [own.get(loss) for loss in trunk.losses])
    for phase in phases:
        for trunk in mine:
            box.ports["gradient", trunk.losses, phase] = y
            y += PORT
    return y


def _stack(boxes: dict[str, Box], frames: Sequence[str]) -> None:
    """Place the models below each other, with room for the frames around them."""
    y, opened = BODY, list[str]()
    for name, box in boxes.items():
        around = [frame for frame in frames if name.startswith(f"{frame}/")]
        closed = [frame for frame in opened if frame not in around]
        y += FRAME * len(closed)
        for frame in around:
            y += 0.0 if frame in opened else FRAME + TAB
        box.y, opened = y, around
        y += box.height + GAP


def _frames(facts: Description, models: dict[str, Box]) -> dict[str, Box]:
    """Return a box around the models of each nested system. Its x is relative to the models."""
    found = {}
    for frame in facts.frames:
        named = {name: box for name, box in models.items() if name.startswith(f"{frame}/")}
        if not named:
            continue
        inside = list(named.values())
        deeper = [_depth(facts, name) - _depth(facts, f"{frame}/") for name in named]
        pad = FRAME * (1 + max(deeper))
        above = (FRAME + TAB) * (1 + deeper[0])
        below = FRAME * (1 + deeper[-1])
        y = inside[0].y - above
        height = inside[-1].bottom + below - y
        found[frame] = Box(frame, -pad, y, inside[0].width + 2 * pad, height)
    return found


def _depth(facts: Description, name: str) -> int:
    return sum(name.startswith(f"{frame}/") for frame in facts.frames)


# Inputs and losses --------------------------------------------------------------------------


def _inputs(facts: Description, models: dict[str, Box]) -> dict[tuple[str, str], Box]:
    """Return a box for each input, left of the first model that it feeds. Noise is always new."""
    found: dict[tuple[str, str], Box] = {}
    placed: set[str] = set()
    for model in facts.models:
        for source in facts.feeds(model.name):
            if source in facts.by_name or source in placed:
                continue
            placed |= {source} - {NOISE}
            y = models[model.name].port(("in", source)) - 12
            text = shortened(source, SMALL, 96)
            found[source, model.name] = Box(text, 0, y, width(text, SMALL) + 22, 24)
    widest = max((box.width for box in found.values()), default=0.0)
    for box in found.values():
        box.width = widest
    return found


def _losses(facts: Description, models: dict[str, Box]) -> dict[str, Box]:
    """Return the boxes of the losses, each near the models that follow it or that it reads."""
    found = {}
    for loss in facts.losses:
        lines = [shortened(line, SMALL, 190) for line in loss_lines(loss)]
        name = shortened(loss.name, NAME - 1, 170, bold=True)
        text = max([width(name, NAME - 1, bold=True), *(width(line, SMALL) for line in lines)])
        height = 40 + LINE * len(lines)
        middle = height / 2
        ports: dict[Any, float] = {"in": middle - 10, "out": middle + 10}
        found[loss.name] = Box(name, 0, 0, text + 40, height, lines, ports)
    wanted = {name: _wanted(facts, name, models) for name in found}
    ordered = sorted(found, key=lambda name: wanted[name])
    tops = spread(
        [wanted[name] for name in ordered],
        [found[name].height for name in ordered],
        [1e6 if name in homes(facts) else 1.0 for name in ordered],
        gap=12.0,
        top=BODY - 8,
    )
    widest = max((box.width for box in found.values()), default=0.0)
    for name, top in zip(ordered, tops, strict=True):
        found[name].y, found[name].width = top, widest
        _keep_apart(facts, name, found[name], models)
    return {name: found[name] for name in ordered}


def _keep_apart(facts: Description, loss: str, box: Box, models: dict[str, Box]) -> None:
    """Move the ends of the lines of a loss off the heights at which other lines leave models."""
    read = next(fact.models for fact in facts.losses if fact.name == loss)
    at = {(n, key): model.port(key) for n, model in models.items() for key in model.ports}
    out = {place: y for place, y in at.items() if place[1] == "out"}
    gradients = {place: y for place, y in at.items() if place[1][0] == "gradient"}
    others = {
        "in": [*(y for (n, _), y in out.items() if n not in read), *gradients.values()],
        "out": [*out.values(), *(y for (_, key), y in gradients.items() if loss not in key[1])],
    }
    for side, taken in others.items():
        box.ports[side] = clear_of(box.port(side), taken) - box.y


def _wanted(facts: Description, loss: str, models: dict[str, Box]) -> float:
    """Return the wanted middle of a loss: such that its line to its own model is straight."""
    if at := homes(facts).get(loss):
        ports = models[at].ports
        mine = [y for key, y in ports.items() if key[0] == "gradient" and loss in key[1]]
        return models[at].y + (mine[0] - 10 if mine else models[at].height / 2)
    read = next((fact.models for fact in facts.losses if fact.name == loss), ())
    near = [models[name] for name in [*read, *(r.model for r in facts.followers(loss))]]
    near = near[: len(read) or None]
    middles = [box.y + 32 for box in near] or [BODY]  # level with the line out of a model
    return sum(middles) / len(middles)

"""The picture as a Mermaid flowchart."""

from collections.abc import Iterator

from mlsystem.diagnostics.description import COPY, FROZEN, NOISE, Description, ModelFacts, Route
from mlsystem.plot.box_text import loss_lines, model_lines, pill_text
from mlsystem.plot.boxes import short_name
from mlsystem.plot.colors import NEGATIVE, NEUTRAL
from mlsystem.plot.drawing import colors_of

INDENT = "    "


def mermaid(facts: Description) -> str:
    """Return a flowchart. Only outlines have colors, so that it fits a light and a dark page."""
    ids = _ids(facts)
    links = list(_links(facts, ids))
    lines = [
        "flowchart LR",
        *_models(facts, ids),
        *(f'{ids[f"input {name}"]}(["{_safe(_shown(name))}"])' for name in _inputs(facts)),
        *(
            f'{ids[f"loss {loss.name}"]}(["{_lines(loss.name, loss_lines(loss))}"])'
            for loss in facts.losses
        ),
        *(link for link, _ in links),
        *_styles(facts, ids),
        *(f"linkStyle {i} stroke:{color}" for i, (_, color) in enumerate(links) if color),
    ]
    return "\n".join([lines[0], *(f"{INDENT}{line}" for line in lines[1:])]) + "\n"


def _ids(facts: Description) -> dict[str, str]:
    """Return a short name for each box: Mermaid has reserved words."""
    names = [f"model {model.name}" for model in facts.models]
    names += [f"loss {loss.name}" for loss in facts.losses]
    names += [f"input {name}" for name in _inputs(facts)]
    return {name: f"{name[0]}{i}" for i, name in enumerate(names)}


def _inputs(facts: Description) -> list[str]:
    """Return the inputs. Each model has its own noise."""
    found = [f"{s} of {m}" if s == NOISE else s for s, m in facts.edges if s not in facts.by_name]
    return list(dict.fromkeys(found))


def _shown(name: str) -> str:
    return NOISE if name.startswith(f"{NOISE} of ") else name


def _safe(text: str) -> str:
    """Return a text without the characters that end a label."""
    return text.replace('"', "#quot;").replace("<", "&lt;").replace(">", "&gt;")


def _lines(title: str, lines: list[str]) -> str:
    return "<br/>".join([f"<b>{_safe(title)}</b>", *map(_safe, lines)])


def _models(facts: Description, ids: dict[str, str]) -> Iterator[str]:
    """Yield the models, with a subgraph for each nested system."""
    opened: list[str] = []
    for model in facts.models:
        around = [frame for frame in facts.frames if model.name.startswith(f"{frame}/")]
        yield from ("end" for frame in opened if frame not in around)
        yield from (_opened(facts, frame) for frame in around if frame not in opened)
        opened = around
        yield f'{ids[f"model {model.name}"]}["{_label(facts, model)}"]'
    yield from ("end" for _ in opened)


def _opened(facts: Description, frame: str) -> str:
    return f'subgraph s{facts.frames.index(frame)} ["{_safe(frame)}"]'


def _label(facts: Description, model: ModelFacts) -> str:
    return _lines(short_name(facts, model.name), [*model_lines(model), *model.badges])


def _links(facts: Description, ids: dict[str, str]) -> Iterator[tuple[str, str]]:
    """Yield each arrow with its color. "" is for the color of the page."""
    for source, target in facts.edges:
        name = f"input {source}" if source not in facts.by_name else f"model {source}"
        name = f"input {source} of {target}" if source == NOISE else name
        yield f"{ids[name]} --> {ids[f'model {target}']}", ""
    for model in facts.models:
        if model.kind == COPY and model.source in facts.by_name:
            yield f"{ids[f'model {model.source}']} -. EMA .-> {ids[f'model {model.name}']}", ""
    for loss in facts.losses:
        for name in loss.models:
            yield f"{ids[f'model {name}']} --> {ids[f'loss {loss.name}']}", ""
    colors = colors_of(facts)
    for route in facts.routes:
        color = NEGATIVE if route.is_negative or route.is_dead else colors[f"loss {route.loss}"]
        yield _route(route, ids), color


def _route(route: Route, ids: dict[str, str]) -> str:
    arrow = "--x" if route.is_dead else "-.->" if route.moves else "==>"
    start, end = ids[f"loss {route.loss}"], ids[f"model {route.model}"]
    return f'{start} {arrow}|"{_safe(pill_text(route))}"| {end}'


def _styles(facts: Description, ids: dict[str, str]) -> Iterator[str]:
    """Yield the outline of each model and loss."""
    dashes = {COPY: ",stroke-dasharray:2 4", FROZEN: ",stroke-dasharray:8 3"}
    kinds = {f"model {model.name}": dashes.get(model.kind, "") for model in facts.models}
    for name, color in colors_of(facts).items():
        if color != NEUTRAL or kinds.get(name):
            yield f"style {ids[name]} stroke:{color},stroke-width:2px{kinds.get(name, '')}"

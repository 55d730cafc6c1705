"""The picture as plain text: a line for each model and for each loss."""

from collections.abc import Sequence

from mlsystem.diagnostics.aligned import aligned
from mlsystem.diagnostics.description import COPY, Description, LossFacts, ModelFacts, Route
from mlsystem.plot.box_text import model_lines, subtitle

ARROW, FOLLOWS, GRADIENT, MOVES, DEAD = "──►", "┈┈►", "══►", "╌╌►", "══✗"


def text(facts: Description) -> str:
    """Return the picture of a system as text."""
    lines = [" · ".join([facts.title, *subtitle(facts)]), "", "models"]
    lines += _columns([_model(facts, model) for model in facts.models])
    if facts.losses:
        lines += [
            "",
            "losses",
            *_columns([row for loss in facts.losses for row in _loss(facts, loss)]),
        ]
    return "\n".join(lines)


def _columns(rows: Sequence[Sequence[str]]) -> list[str]:
    """Return rows as lines, with columns of equal width. Empty columns are left out."""
    lines = ["  ".join(text for text in row if text) for row in aligned(rows)]
    return [f"  {line}".rstrip() for line in lines]


def _model(facts: Description, model: ModelFacts) -> list[str]:
    feeds = facts.feeds(model.name)
    is_only_copy = model.kind == COPY and not feeds
    sources = ", ".join([model.source] if is_only_copy else feeds)
    arrow = FOLLOWS if is_only_copy else ARROW if feeds else ""
    badges = [f"[{badge}]" for badge in model.badges]
    return [sources, arrow, model.name, " ".join([", ".join(model_lines(model)), *badges])]


def _loss(facts: Description, loss: LossFacts) -> list[list[str]]:
    """Return a row for each model that follows a loss."""
    sources = ", ".join([*loss.models, *loss.inputs])
    terms = f" {' + '.join(loss.terms)}" if loss.terms else ""
    first = [sources, ARROW if sources else "", f"({loss.name}){terms}"]
    routes = facts.followers(loss.name)
    if not routes:
        return [[*first, "", "", "followed by no model"]]
    rows = [["", "", "", *_route(facts, route)] for route in routes]
    return [[*first, *rows[0][3:]], *rows[1:]]


def _route(facts: Description, route: Route) -> list[str]:
    arrow = DEAD if route.is_dead else MOVES if route.moves else GRADIENT
    said = [f"now, moved by {route.moves}"] if route.moves else []
    said += [] if route.norm is None else [f"norm {route.norm:.3g}"]
    phases = [number for number, group in facts.phases if route.model in group]
    if len(facts.phases) > 1:
        said.append(f"phase {', '.join(phases)}")
    notes = f" ({'; '.join(said)})" if said else ""
    return [arrow, route.model, f"{route.weight}{notes}"]

"""The routing rows of a system: which losses each model follows, nested systems included."""

from collections.abc import Iterable, Sequence
from typing import Any

from mlsystem._learner import SystemLearner
from mlsystem.routing import members, routing_table


def top(system: Any, names: Iterable[str]) -> list[str]:
    """The system's own losses among some, without those inside its nested systems."""
    inside = tuple(f"{name}/" for name in members.nested(system))
    return [name for name in names if not (inside and name.startswith(inside))]


def rows(
    learner: SystemLearner, names: Sequence[str], parts: Sequence[str] | None = None
) -> routing_table.Rows:
    """Which of the losses, or of the parts of them, each leaf of a system follows, by weight."""
    system, weights = learner.model, learner.given.loss_weights
    parts = learner.known.parts if parts is None else parts
    trained, frozen = _trained_members(system), list(members.direct(system))
    own, terms = top(system, names), top(system, parts)
    table = routing_table.read(system.routing, trained, own, weights, frozen, terms)
    inner: dict[str, dict[str, routing_table.Row | None]] = {}
    for name, nested in members.nested(system).items():
        if name in table:
            inside, terms = (_inside(name, known) for known in (names, parts))
            inner[name] = dict.fromkeys(members.trained(nested))  # all follow the outer row
            if inside:
                inner[name] |= rows(nested._mlsystem, inside, terms)
    return routing_table.expand(table, inner)


def _inside(name: str, names: Iterable[str]) -> list[str]:
    """The names in a nested system, as they are called there."""
    return [n.removeprefix(f"{name}/") for n in names if n.startswith(f"{name}/")]


def _trained_members(system: Any) -> list[str]:
    """The direct members with weights to train, a nested system as one, and `self`."""
    inside = members.nested(system)
    found: dict[str, None] = {}
    for name in members.trained(system):
        found[next((n for n in inside if name.startswith(f"{n}/")), name)] = None
    return list(found)

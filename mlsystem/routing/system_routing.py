"""The routing table of a system and of the systems inside it."""

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from mlsystem._learner import SystemBase
from mlsystem.routing import members, routing_table


def top(nested: Iterable[str], names: Iterable[str]) -> list[str]:
    """Return a system's own losses among `names`, without the losses of its nested systems."""
    inside = tuple(f"{name}/" for name in nested)
    return [name for name in names if not (inside and name.startswith(inside))]


def rows(
    learner: SystemBase, names: Sequence[str], parts: Sequence[str] | None = None
) -> routing_table.Rows:
    """Return, for each leaf of a system, the losses or terms it follows and their weights."""
    system, weights = learner.model, learner.given.loss_weights
    parts = learner.known.parts if parts is None else parts
    inside = learner.nested
    trained, frozen = _trained_members(system, inside), list(members.direct(system))
    own, terms = top(inside, names), top(inside, parts)
    table = routing_table.read(system.routing, trained, own, weights, frozen, terms)
    inner: dict[str, dict[str, routing_table.Row | None]] = {}
    for name, nested in inside.items():
        if name in table:
            losses, terms = (_inside(name, known) for known in (names, parts))
            inner[name] = dict.fromkeys(members.trained(nested))  # all models use the outer row
            if losses:
                inner[name] |= rows(nested._mlsystem, losses, terms)
    return routing_table.expand(table, inner)


def _inside(name: str, names: Iterable[str]) -> list[str]:
    """Return the names inside a nested system, without the system's prefix."""
    return [n.removeprefix(f"{name}/") for n in names if n.startswith(f"{name}/")]


def _trained_members(system: Any, inside: Mapping[str, Any]) -> list[str]:
    """Return the direct members with trainable weights, a nested system as one, and `self`."""
    found: dict[str, None] = {}
    for name in members.trained(system):
        found[next((n for n in inside if name.startswith(f"{n}/")), name)] = None
    return list(found)

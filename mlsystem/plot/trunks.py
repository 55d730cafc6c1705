"""Which losses share a line to the models that follow them, and beside which model they belong."""

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass

from mlsystem.diagnostics.description import Description, Route

BUNDLED = 4  # so many losses with the same followers share one line


@dataclass(frozen=True)
class Trunk:
    """A line from one loss, or from several losses with equal routes, to their followers."""

    losses: tuple[str, ...]
    routes: tuple[Route, ...]


def unreached(facts: Description) -> dict[str, int]:
    """Return the models that many losses do not reach, with the number of these losses."""
    found = Counter(route.model for route in facts.routes if route.is_dead)
    return {model: number for model, number in found.items() if number >= BUNDLED}


def trunks(facts: Description) -> list[Trunk]:
    """Return the lines of gradients. Many losses with equal routes share one line."""
    groups: dict[object, list[str]] = {}
    dead = unreached(facts)
    drawn = {
        loss.name: [
            route
            for route in facts.followers(loss.name)
            if not (route.is_dead and route.model in dead)
        ]
        for loss in facts.losses
    }
    for loss, routes in drawn.items():
        kind = frozenset((r.model, r.weight, r.is_negative, r.moves) for r in routes)
        groups.setdefault(kind if routes else loss, []).append(loss)
    found = []
    for names in groups.values():
        joined = len(names) >= BUNDLED and not facts.is_measured
        for part in [tuple(names)] if joined else [(name,) for name in names]:
            if routes := drawn[part[0]]:
                found.append(Trunk(part, tuple(routes)))
    return found


def homes(facts: Description) -> dict[str, str]:
    """Return the model beside which a loss belongs: its namesake, or its only follower.

    A model has one such loss at most.
    """
    found: dict[str, str] = {}
    follow = {loss.name: [r.model for r in facts.followers(loss.name)] for loss in facts.losses}
    for loss, models in follow.items():
        if loss in facts.by_name and (loss in models or not models):
            found[loss] = loss
    for loss, models in follow.items():
        if loss not in found and len(models) == 1 and models[0] not in found.values():
            found[loss] = models[0]
    return found


def by_row(facts: Description, given: Sequence[Trunk]) -> list[Trunk]:
    """Return the trunks from the highest loss to the lowest."""
    rows = {model.name: float(i) for i, model in enumerate(facts.models)}
    read, at_home = {loss.name: loss.models for loss in facts.losses}, homes(facts)

    def row(trunk: Trunk) -> float:
        at = at_home.get(trunk.losses[0])
        near = [at] if at else read.get(trunk.losses[0]) or [r.model for r in trunk.routes]
        return sum(rows[name] for name in near) / len(near)

    return sorted(given, key=row)

"""Read the losses of a system, and which model follows which of them, with which weight."""

from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

from mlsystem import _learner
from mlsystem._learner import Learner
from mlsystem.diagnostics import wording
from mlsystem.diagnostics.dataflow import Dataflow
from mlsystem.diagnostics.description import LossFacts, Route
from mlsystem.routing import model_names, routing_table, system_routing

Norms = Mapping[str, Mapping[str, float]]


def read_rows(learner: Learner, flow: Dataflow) -> routing_table.Rows:
    """Return the losses that each model follows. Empty if the losses have no names yet."""
    names, parts = list(learner.known.names), list(learner.known.parts)
    if flow.taken is not None:
        names, parts = list(flow.taken.losses), list(flow.taken.parts)
    if not _learner.is_system(learner.model):
        return learner.rows(names) if names else {}
    if not names:
        names = list(dict.fromkeys(name for row in _table(learner) for name in row))
    return system_routing.rows(learner, names, parts) if names else {}  # type: ignore[arg-type]


def _table(learner: Learner) -> list[Mapping[str, Any]]:
    routing = getattr(learner.model, "routing", None)  # a model alone has none
    return list(routing.values()) if isinstance(routing, Mapping) else []


def loss_names(learner: Learner, flow: Dataflow) -> list[str]:
    """Return the names of the losses, without the sums of nested systems that are split."""
    if flow.taken is not None:
        names = list(flow.taken.losses)
    else:
        names = list(learner.known.names) or list(
            dict.fromkeys(name for row in _table(learner) for name in row)
        )
    return [name for name in names if not any(n.startswith(f"{name}/") for n in names)]


def read_routes(learner: Learner, rows: routing_table.Rows, losses: Sequence[str]) -> list[Route]:
    """Return the routes, with the weights of this moment."""
    routes: list[Route] = []
    batches = 0 if learner.model.optimizer is None else int(learner.batches_seen())
    for model, row in rows.items():
        weights = _weights(learner, row, batches)
        owners = {name: _owner(name, losses) for name in row}
        for loss in dict.fromkeys(owners.values()):
            mine = {name: weights[name] for name in row if owners[name] == loss}
            routes.append(_route(loss, model, mine))
    return routes


def _weights(learner: Learner, row: routing_table.Row, batches: int) -> dict[str, wording.Weight]:
    """Return the weight of each loss in a row. A balance that weighs it goes by its class."""
    balance = learner.balance
    balanced = row if balance is None else balance.weighed(row)
    found = {name: wording.weight(factors, batches) for name, factors in balanced.items()}
    for name, factors in row.items():
        if len(balanced[name]) > len(factors):
            moves = [wording.weight(factors, batches).moves, type(balance).__name__]
            found[name] = replace(found[name], moves=", ".join(filter(None, moves)))
    return found


def _owner(name: str, losses: Sequence[str]) -> str:
    """Return the loss that a name stands for: itself, or the loss of which it is a term."""
    return max((loss for loss in losses if model_names.named(loss, [name])), key=len, default=name)


def _route(loss: str, model: str, weights: Mapping[str, wording.Weight]) -> Route:
    texts = [
        f"{name.removeprefix(f'{loss}/') or 'other'} {weight.text}" if name != loss else weight.text
        for name, weight in weights.items()
    ]
    moves = dict.fromkeys(weight.moves for weight in weights.values() if weight.moves)
    is_negative = all(weight.is_negative for weight in weights.values())
    return Route(loss, model, ", ".join(texts), is_negative, ", ".join(moves))


def measured(route: Route, report: Norms | None) -> Route:
    """Return a route with the norm in a gradient report."""
    norm = (report or {}).get(route.loss, {}).get(route.model)
    return replace(route, norm=norm)


def loss_facts(
    flow: Dataflow, losses: Sequence[str], rows: routing_table.Rows, models: set[str]
) -> list[LossFacts]:
    """Return the terms of each loss, and what it is computed from."""
    found = []
    for name in dict.fromkeys(
        [*losses, *(_owner(n, losses) for row in rows.values() for n in row)]
    ):
        owners = flow.taken.owners if flow.taken else {}
        prefix = f"{name}_"
        terms = [term.removeprefix(prefix) for term, owner in owners.items() if owner == name]
        sources = flow.losses.get(name, ())
        read = [source for source in sources if source in models]
        found.append(LossFacts(name, terms, read, [s for s in sources if s not in models]))
    return found

"""Read the `Description` of a model or system that is set up, without a change to it."""

import math
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from itertools import groupby
from typing import Any

from mlsystem import _keras, _learner
from mlsystem._learner import Learner
from mlsystem.diagnostics import wording
from mlsystem.diagnostics.dataflow import Dataflow, dataflow
from mlsystem.diagnostics.description import (
    COPY,
    FROZEN,
    TRAINED,
    CallFacts,
    Description,
    LossFacts,
    ModelFacts,
    Route,
)
from mlsystem.engine import engine
from mlsystem.optimizers import optimizer_properties
from mlsystem.routing import members, model_names, routing_table, system_routing
from mlsystem.step.train_step import TrainStep

Norms = Mapping[str, Mapping[str, float]]


def describe(model: Any, report: Norms | None = None) -> Description:
    """Return the description of a model or system.

    Args:
        model: an `MLModel` or `MLSystem`.
        report: norms of gradients by loss and model, as `gradient_report` returns them.

    Raises:
        ValueError: if the model is not set up.
    """
    learner: Learner = model._mlsystem
    check(learner)
    if report is not None and not isinstance(report, Mapping):
        raise TypeError(
            f"The report of a picture is a {type(report).__name__}. Give the result of "
            "`gradient_report(data)`."
        )
    flow = dataflow(learner)
    rows, losses = _rows(learner, flow), _losses(learner, flow)
    routes = [_measured(route, report) for route in _routes(learner, rows, losses)]
    frames = _frames(model)
    models = _models(learner, flow, list(losses), frames)
    known = {one.name for one in models}
    return Description(
        title=model.name if type(model).__module__.startswith("mlsystem") else type(model).__name__,
        routing=_routing(model),
        models=models,
        losses=_loss_facts(flow, losses, rows, known),
        routes=routes,
        calls=list(flow.calls),
        edges=_edges(flow.calls),
        frames=frames,
        phases=_phases(learner),
        backward_passes=_backward_passes(learner, rows),
        compiled=_compiled(model),
        notes=_notes(learner, flow),
    )


def _compiled(model: Any) -> str:
    how, steps = engine.compiler(model), model.steps_per_execution
    if not how:
        return "not compiled: runs eagerly"
    return f"whole, by {how}" if steps == 1 else f"{steps} steps as one, by {how}"


def check(learner: Learner) -> None:
    """Raise an error if a model is not set up."""
    if not learner.is_ready or learner.setup is None:
        raise ValueError(
            f"'{learner.name}' is not set up, or has changed since. Call `setup(data)` first. "
            "One batch of data is enough."
        )


# Models -------------------------------------------------------------------------------------


def _models(
    learner: Learner, flow: Dataflow, losses: Sequence[str], frames: Sequence[str]
) -> list[ModelFacts]:
    """Return the models in the order of `forward`. Members of a nested system stay together."""
    members_, called = learner.members(), dict.fromkeys(call.model for call in flow.calls)
    ordered = [*called, *(name for name in members_ if name not in called)]
    for frame in frames:
        ordered = _together(ordered, frame)
    calls = Counter(call.model for call in flow.calls)
    return [_model(learner, name, members_[name], losses, calls[name]) for name in ordered]


def _together(names: Sequence[str], frame: str) -> list[str]:
    """Return the names with those in a nested system moved to the first of them."""
    inside = [name for name in names if name.startswith(f"{frame}/")]
    others = [name for name in names if name not in inside]
    first = next((i for i, name in enumerate(names) if name in inside), 0)
    return [*others[:first], *inside, *others[first:]]


def _model(
    learner: Learner, name: str, member: Any, losses: Sequence[str], calls: int
) -> ModelFacts:
    weights, trained = map(_size, (member.weights, member.trainable_weights))
    trained = trained if _is_partly_frozen(member) else min(trained, 1) * weights
    if _learner.is_copy(member):
        source, momentum = _source(learner, member), wording.momentum(member)
        return ModelFacts(name, COPY, weights, source=source, momentum=momentum, calls=calls)
    if not trained:
        return ModelFacts(name, FROZEN, weights, calls=calls)
    return ModelFacts(
        name,
        TRAINED,
        weights,
        trained,
        optimizer=wording.optimizer(learner.optimizers.get(name)),
        badges=_badges(learner, name, losses),
        calls=calls,
    )


def _is_partly_frozen(member: Any) -> bool:
    if isinstance(member, members.Own):
        return False
    return any(layer.weights and not layer.trainable for layer in _keras.flat_layers(member))


def _size(weights: Iterable[Any]) -> int:
    return sum(math.prod(weight.shape) for weight in weights)


def _source(learner: Learner, copy: Any) -> str:
    """Return the name of the model that a copy follows, or of the model that contains it."""
    known, held = learner.members(), {id(weight) for weight in copy.source.weights}
    named = [n for n, m in known.items() if held & {id(w) for w in m.weights}]
    return next(iter(named), copy.source.name)


def _badges(learner: Learner, name: str, losses: Sequence[str]) -> list[str]:
    assert learner.setup is not None
    turn, condition = (found.get(name) for found in (learner.setup.turns, learner.setup.conditions))
    said = wording.turn(turn) if turn else []
    return [*said, *([f"when {wording.condition(condition, losses)}"] if condition else [])]


def _frames(model: Any, path: str = "") -> list[str]:
    """Return the nested systems by path, each before those inside it."""
    found: list[str] = []
    if _learner.is_system(model):
        for name, inner in members.nested(model).items():
            found += [f"{path}{name}", *_frames(inner, f"{path}{name}/")]
    return found


def _edges(calls: Iterable[CallFacts]) -> list[tuple[str, str]]:
    return list(dict.fromkeys((s, call.model) for call in calls for s in call.sources))


# Losses and routes --------------------------------------------------------------------------


def _rows(learner: Learner, flow: Dataflow) -> routing_table.Rows:
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
    routing = learner.model.routing
    return list(routing.values()) if isinstance(routing, Mapping) else []


def _losses(learner: Learner, flow: Dataflow) -> list[str]:
    """Return the names of the losses, without the sums of nested systems that are split."""
    if flow.taken is not None:
        names = list(flow.taken.losses)
    else:
        names = list(learner.known.names) or list(
            dict.fromkeys(name for row in _table(learner) for name in row)
        )
    return [name for name in names if not any(n.startswith(f"{name}/") for n in names)]


def _routes(learner: Learner, rows: routing_table.Rows, losses: Sequence[str]) -> list[Route]:
    balance, routes = learner.balance, []
    batches = 0 if learner.model.optimizer is None else int(learner.batches_seen())
    for model, row in rows.items():
        row = row if balance is None else balance.weighed(row)
        owners = {name: _owner(name, losses) for name in row}
        for loss, names in groupby(row, key=owners.__getitem__):
            routes.append(_route(loss, model, {n: row[n] for n in names}, batches))
    return routes


def _owner(name: str, losses: Sequence[str]) -> str:
    """Return the loss that a name stands for: itself, or the loss of which it is a term."""
    return max((loss for loss in losses if model_names.named(loss, [name])), key=len, default=name)


def _route(loss: str, model: str, row: routing_table.Row, batches: int) -> Route:
    weights = {name: wording.weight(factors, batches) for name, factors in row.items()}
    texts = [
        f"{name.removeprefix(f'{loss}/') or 'other'} {weight.text}" if name != loss else weight.text
        for name, weight in weights.items()
    ]
    moves = dict.fromkeys(weight.moves for weight in weights.values() if weight.moves)
    is_negative = all(weight.is_negative for weight in weights.values())
    return Route(loss, model, ", ".join(texts), is_negative, ", ".join(moves))


def _measured(route: Route, report: Norms | None) -> Route:
    norm = (report or {}).get(route.loss, {}).get(route.model)
    return Route(route.loss, route.model, route.weight, route.is_negative, route.moves, norm)


def _loss_facts(
    flow: Dataflow, losses: Sequence[str], rows: routing_table.Rows, models: set[str]
) -> list[LossFacts]:
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


# The step -----------------------------------------------------------------------------------


def _routing(model: Any) -> str:
    if not _learner.is_system(model):
        return ""
    return f'"{model.routing}"' if isinstance(model.routing, str) else "table"


def _phases(learner: Learner) -> list[tuple[str, list[str]]]:
    """Return the phases as `("1–3", models)`: equal phases in a row are one."""
    found, first = [], 1
    for models, group in groupby(list(map(list, learner.phases()))):
        last = first + len(list(group)) - 1
        found.append((str(first) if first == last else f"{first}–{last}", models))
        first = last + 1
    return found


def _backward_passes(learner: Learner, rows: routing_table.Rows) -> int:
    scaled = {
        name: optimizer_properties.scale(optimizer) is not None
        for name, optimizer in learner.optimizers.items()
    }
    in_phases = [{m: rows[m] for m in models if m in rows} for models in learner.phases()]
    return sum(len(routing_table.groups(found, scaled)) for found in in_phases)


def _notes(learner: Learner, flow: Dataflow) -> list[str]:
    found = []
    if learner.balance is not None:
        found.append(f"balanced by {type(learner.balance).__name__}")
    if not flow.calls:
        found.append("order of the models as declared")
    if not hasattr(type(learner.model).train_step, "__wrapped__"):
        return found
    if type(learner.model).train_step is not TrainStep.train_step:
        found.append("own train_step: routing as declared")
    return found

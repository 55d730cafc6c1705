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
    ModelFacts,
)
from mlsystem.diagnostics.routes import (
    Norms,
    loss_facts,
    loss_names,
    measured,
    read_routes,
    read_rows,
)
from mlsystem.engine import engine
from mlsystem.optimizers import optimizer_properties
from mlsystem.routing import members, routing_table
from mlsystem.step.train_step import TrainStep


def describe(model: Any, report: Norms | None = None) -> Description:
    """Return the description of a model or system.

    Args:
        model: an `MLModel` or `MLSystem`.
        report: norms of gradients by loss and model, as `gradient_report` returns them.

    Raises:
        TypeError: if it is no model of this library, or the report is not one.
        ValueError: if the model is not set up, or the report is empty.
    """
    learner = getattr(model, "_mlsystem", None)
    if not isinstance(learner, Learner):
        raise TypeError(
            f"Found a {type(model).__name__} to draw. Give an `MLSystem` or `MLModel`. "
            "`MLModel(model)` makes one of a Keras model."
        )
    check(learner)
    _check_report(report)
    flow = dataflow(learner)
    rows, losses = read_rows(learner, flow), loss_names(learner, flow)
    routes = [measured(route, report) for route in read_routes(learner, rows, losses)]
    frames = _frames(model)
    models = _models(learner, flow, list(losses), frames)
    known = {one.name for one in models}
    return Description(
        title=model.name if type(model).__module__.startswith("mlsystem") else type(model).__name__,
        routing=_routing(model),
        models=models,
        losses=loss_facts(flow, losses, rows, known),
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


def _check_report(report: Any) -> None:
    """Raise an error if a report does not hold norms by loss and model."""
    if isinstance(report, Mapping) and not report:
        raise ValueError(
            "The report of a picture is empty. Give the result of `system.gradient_report(data)`, "
            "or leave `report` out."
        )
    found = report if isinstance(report, Mapping) else {} if report is None else {"": report}
    for loss, row in found.items():
        if not isinstance(row, Mapping):
            entry = f", in its entry '{loss}'," if loss else ""
            raise TypeError(
                f"The report of a picture{entry} is a {type(row).__name__}. Give the result of "
                "`gradient_report(data)`, which is {loss: {model: norm}}."
            )


def check(learner: Learner) -> None:
    """Raise an error if a model is not set up."""
    if not learner.is_ready or learner.setup is None:
        what = "is not set up" if learner.setup is None else "has changed since it was set up"
        raise ValueError(
            f"'{learner.name}' {what}. Call `fit` or `setup(data)` first. For `setup`, one batch "
            "of data is enough."
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
    scaled = optimizer_properties.scales_of(learner.optimizers, learner.optimizers)
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

"""The models of a system in one table: how each is trained, when, and by which losses."""

import collections
import math
import numbers
from collections.abc import Mapping, Sequence
from typing import Any

import keras
from keras import ops

from mlsystem import _learner
from mlsystem.diagnostics.gradient_report import table
from mlsystem.preparation import setup
from mlsystem.routing import members, model_names, routing_table, system_routing, update_schedule

_HEADING = ["model", "weights", "trainable", "optimizer", "rate", "updated", "follows"]
_MANY = 8  # equal models, from which an ensemble is worth a line
_UNKNOWN = "(known after the first batch)"


def text(system: Any) -> str:
    """Return the table as text, with the balance of the losses."""
    rows = _rows(system)
    lines = [_HEADING, *(_line(system, n, m, rows) for n, m in members.leaves(system).items())]
    balance = system.balance
    last = [] if balance is None else [f"Losses are balanced by {type(balance).__name__}."]
    return "\n".join([f"Models of '{system.name}':", *table(lines), *last, *_equal(system)])


def _equal(system: Any) -> list[str]:
    """Say that many equal models would be faster as an `Ensemble`."""
    kinds = collections.defaultdict[Any, list[str]](list)
    for name, model in members.leaves(system).items():
        if shapes := [tuple(weight.shape) for weight in model.trainable_weights]:
            kinds[type(model), str(shapes)].append(name)
    return [
        f"{len(names)} models like '{names[0]}' have equal weights in number and shape. An "
        "ml.Ensemble runs such models as one program, which is faster."
        for names in kinds.values()
        if len(names) >= _MANY
    ]


def _rows(system: Any) -> routing_table.Rows | None:
    """Return the losses that each model follows, or None if the losses have no names yet."""
    learner = system._mlsystem
    names = learner.known.names or setup.loss_names(learner)
    return system_routing.rows(learner, names) if names else None


def _line(system: Any, name: str, model: Any, rows: routing_table.Rows | None) -> list[str]:
    if not model.built and not model.weights:
        return [name, "not built", *("" for _ in _HEADING[2:])]
    weights, trained = (_count(w) for w in (model.weights, model.trainable_weights))
    if not model.trainable_weights:
        return [
            name,
            weights,
            trained,
            "",
            "",
            f"follows '{_source(system, model)}'" if _learner.is_copy(model) else "frozen",
            "",
        ]
    optimizer = system.optimizers.get(name)
    follows = _UNKNOWN if rows is None else _follows(system, rows.get(name, {}))
    when = _when(system, name)
    return [name, weights, trained, _class(optimizer), _rate(optimizer), when, follows]


def _source(system: Any, model: Any) -> str:
    named = [name for name, other in members.leaves(system).items() if other is model.source]
    return next(iter(named), model.source.name)


def _count(weights: Sequence[Any]) -> str:
    return f"{sum(math.prod(weight.shape) for weight in weights):,}"


def _class(optimizer: Any) -> str:
    inner = getattr(optimizer, "inner_optimizer", optimizer)
    return "(not made yet)" if optimizer is None else type(inner).__name__


def _rate(optimizer: Any) -> str:
    rate = getattr(getattr(optimizer, "inner_optimizer", optimizer), "learning_rate", None)
    return "" if rate is None else _number(rate)


def _number(value: Any) -> str:
    return f"{float(ops.convert_to_numpy(value)):.4g}"


def _when(system: Any, name: str) -> str:
    models = list(system._mlsystem.models())
    phases = update_schedule.read_phases(system.phases, models)
    turns = [str(i + 1) for i, group in enumerate(phases) if name in group]
    said = [f"phase {', '.join(turns)} of {len(phases)}"] if len(phases) > 1 else []
    for attribute, words in (
        ("update_every", "every {} batches"),
        ("update_start", "from {}"),
        ("update_end", "to {}"),
        ("update_when", "when {}"),
    ):
        given = getattr(system, attribute, None)
        found = model_names.by_name(given, models, attribute) if isinstance(given, Mapping) else {}
        if name in found:
            value = found[name]
            said.append(words.format(getattr(value, "__name__", value)))
    return ", ".join(said) or "each batch"


def _follows(system: Any, row: routing_table.Row) -> str:
    return ", ".join(" * ".join([loss, *_weights(system, f)]) for loss, f in row.items())


def _weights(system: Any, factors: tuple[Any, ...]) -> list[str]:
    """Return the weight of a loss: the product of its numbers, and current values of the rest.

    The rest is variables and schedules.
    """
    plain = math.prod(f for f in factors if isinstance(f, numbers.Real))
    found = [] if plain == 1 else [f"{plain:.4g}"]
    return found + [_moving(system, f) for f in factors if not isinstance(f, numbers.Real)]


def _moving(system: Any, factor: Any) -> str:
    if isinstance(factor, keras.Variable):
        return _number(factor)
    seen = 0 if system.optimizer is None else system._mlsystem.batches_seen()
    return f"{type(factor).__name__}({_number(factor(ops.convert_to_tensor(seen)))})"

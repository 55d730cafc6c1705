"""The losses of a system: those of its members, its own, and those inside its nested systems."""

from collections.abc import Iterable, Sequence
from typing import Any

from mlsystem import _keras, data, losses, members, routing
from mlsystem.data import Batch
from mlsystem.signature import extras
from mlsystem.step import Taken


def member_losses(system: Any, batch: Batch, outputs: Any, training: Any) -> dict[str, Any]:
    """Each member's own loss, under its name."""
    found = {
        name: _member_loss(system, name, member, batch, outputs, training)
        for name, member in members.direct(system).items()
        if has_loss(system, name, member)
    }
    system._run.weighted |= set(found)  # by their sample weights
    return found


def has_loss(system: Any, name: str, member: Any) -> bool:
    """Whether a member has a loss: its own, or one given to `compile`."""
    return name in system._run.losses or has_own_loss(member)


def has_own_loss(member: Any) -> bool:
    """Whether a member brings a loss with it.

    A plain Keras model does not: it may have been compiled for something else.
    """
    return hasattr(member, "_has_loss") and member._has_loss()


def _member_loss(
    system: Any, name: str, member: Any, batch: Batch, outputs: Any, training: Any
) -> Any:
    x, y, weight = batch.x, batch.y, batch.sample_weight
    if name in system._run.losses:
        value = losses.compiled(system._run.losses[name], name, y, outputs, weight)
        return losses.scalar(value, f"The loss of '{name}'")
    if hasattr(member, "compute_losses"):
        own = [data.own(part, name) for part in (y, outputs, weight)]
        return member.loss(x, *own, training=training)
    value, system._run.terms[name] = losses.of_model(member, x, y, outputs, weight, training)
    return value


def find(system: Any, batch: Batch, outputs: Any, training: bool) -> Taken:
    """All losses after one forward pass, as scalars, and their named terms."""
    of_layers = _layer_losses(system)
    system._run.terms, system._run.weighted = {}, set()
    for inner in members.nested(system).values():
        inner._run.taken = None
    offered = extras(system.compute_losses, sample_weight=batch.sample_weight, training=training)
    given = system.compute_losses(batch.x, batch.y, outputs, **offered)
    weighted = system._run.weighted if "sample_weight" not in offered else set(given)
    values, terms = losses.named(given, type(system).__name__, batch, weighted)
    terms = {n: t for n, t in system._run.terms.items() if n in values} | terms
    system._run.terms = {}  # nothing of a trace or a graph is kept
    for name, inner in members.nested(system).items():
        if inner._run.taken is None and (extra := _layer_losses(inner)):  # its loss was not asked
            of_layers[name] = losses.total(list(extra.values()))
    for name, extra in of_layers.items():
        values[name] = values[name] + extra if name in values else extra
    return _with_nested(system, values, terms)


def _layer_losses(system: Any) -> dict[str, Any]:
    """Regularizers and `add_loss` of each member's layers, and of the system itself."""
    direct, inside = members.direct(system), members.nested(system)  # which count their own
    found = {
        name: member.losses
        for name, member in direct.items()
        if name not in inside and not (hasattr(member, "key") and member._counts_layer_losses())
    }
    known = {id(member) for member in direct.values()}
    others = [layer for layer in system.layers if id(layer) not in known]  # without weights
    held = {id(v) for layer in others for v in layer.weights}
    own = [v for v in members.Own(system).trainable_weights if v.regularizer and id(v) not in held]
    found["self"] = [
        *_keras.own_losses(system),
        *(loss for layer in others for loss in layer.losses),
        *(v.regularizer(v) for v in own),
    ]
    return {name: losses.total(extra) for name, extra in found.items() if extra}


def _with_nested(system: Any, values: dict[str, Any], terms: dict[str, dict[str, Any]]) -> Taken:
    """Adds what is inside the nested systems, under their path."""
    flat = {f"{n}_{term}": value for n, parts in terms.items() for term, value in parts.items()}
    owners = {f"{n}_{term}": n for n, parts in terms.items() for term in parts}
    for name, inner in members.nested(system).items():
        taken, inner._run.taken = inner._run.taken, None
        if name in values and taken is not None:
            values |= {f"{name}/{n}": value for n, value in taken.losses.items()}
            flat |= {f"{name}/{n}": value for n, value in taken.terms.items()}
            owners |= {f"{name}/{n}": f"{name}/{owner}" for n, owner in taken.owners.items()}
    return Taken(values, flat, owners)


def top(system: Any, names: Iterable[str]) -> list[str]:
    """The system's own losses among some, without those inside its nested systems."""
    inside = tuple(f"{name}/" for name in members.nested(system))
    return [name for name in names if not (inside and name.startswith(inside))]


def rows(system: Any, names: Sequence[str]) -> routing.Rows:
    """Which of the losses each leaf of a system follows, with which weights."""
    weights = system._run.given.get("loss_weights")
    trained, frozen = _trained_members(system), list(members.direct(system))
    table = routing.read(system.routing, trained, top(system, names), weights, frozen)
    inner: dict[str, dict[str, routing.Row | None]] = {}
    for name, nested in members.nested(system).items():
        if name in table:
            inside = [n.removeprefix(f"{name}/") for n in names if n.startswith(f"{name}/")]
            inner[name] = dict.fromkeys(members.trained(nested))  # all follow the outer row
            if inside:
                inner[name] |= rows(nested, inside)
    return routing.expand(table, inner)


def _trained_members(system: Any) -> list[str]:
    """The direct members with weights to train, a nested system as one, and `self`."""
    inside = members.nested(system)
    found: dict[str, None] = {}
    for name in members.trained(system):
        found[next((n for n in inside if name.startswith(f"{n}/")), name)] = None
    return list(found)

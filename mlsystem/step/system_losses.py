"""The losses of a system: of its members, of the system itself, and of its nested systems."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from mlsystem import _keras, _learner
from mlsystem._learner import SystemBase
from mlsystem.data.batch import Batch, own_entry
from mlsystem.routing import members
from mlsystem.step import loss_method, reduction
from mlsystem.step.loss_values import ForwardLosses, LossValues
from mlsystem.step.reduction import Loss


@dataclass(frozen=True)
class LayerLosses:
    """What has regularizers, or losses of `add_loss`, that count in a system itself.

    Attributes:
        members: the members whose own loss leaves them out.
        layers: the layers that are no members, because they have no weights.
        weights: the system's own weights with a regularizer.
    """

    members: Mapping[str, Any]
    layers: list[Any]
    weights: list[Any]


def find(learner: SystemBase, batch: Batch, outputs: Any, training: bool) -> LossValues:
    """Compute all losses after one forward pass, as scalars, with their named terms."""
    system, of_layers = learner.model, _layer_losses(learner)
    inside, owner = learner.nested, type(system).__name__
    for part in (learner, *(inner._mlsystem for inner in inside.values())):
        part.losses = ForwardLosses()
    parts, where = (batch.x, batch.y, outputs), f"{owner}.compute_losses"
    given, is_weighted = loss_method.call(
        system, "compute_losses", where, parts, batch.sample_weight, training
    )
    found = reduction.named(given, owner, batch, learner.losses, is_weighted)
    values = {name: loss.value for name, loss in found.items()}
    for name, inner in inside.items():
        was_asked = inner._mlsystem.losses.taken is not None
        if not was_asked and (extra := _layer_losses(inner._mlsystem)):
            of_layers[name] = reduction.total(list(extra.values()))
    for name, extra in of_layers.items():
        values[name] = values[name] + extra if name in values else extra
    taken = _with_nested(inside, values, found)
    learner.losses = ForwardLosses()  # keep nothing from a trace or a graph
    taken.parts |= {f"{n}/": v for n, v in of_layers.items() if n in found and found[n].terms}
    return taken


def member_losses(learner: SystemBase, batch: Batch, outputs: Any, training: Any) -> dict[str, Any]:
    """Compute each member's loss, its own or the one from `compile`, under the member's name."""
    given = learner.wiring.losses if learner.wiring else {}
    found = {
        name: _member_loss(name, member, given.get(name), batch, outputs, training)
        for name, member in learner.with_losses.items()
    }
    learner.losses.of_members |= found
    return {name: loss.value for name, loss in found.items()}


def with_losses(learner: SystemBase) -> dict[str, Any]:
    """Return the members that have a loss, their own or one from `compile`."""
    given = learner.wiring.losses if learner.wiring else {}
    direct = members.direct(learner.model)
    return {name: m for name, m in direct.items() if name in given or has_own_loss(m)}


def has_own_loss(member: Any) -> bool:
    """Return whether a member has its own loss.

    The loss of a plain Keras model does not count, because it may be for another purpose.
    """
    learner = _learner.of(member)
    return learner is not None and learner.own_loss.exists


def _member_loss(
    name: str, member: Any, given: Any, batch: Batch, outputs: Any, training: Any
) -> Loss:
    x, y, weight = batch.x, batch.y, batch.sample_weight
    if given is not None:
        value = reduction.compiled(given, name, y, outputs, weight)
        value, size = reduction.scalar(value, f"The loss of '{name}'")
        return Loss(value, reduction.own_size(y, name) if size is None else size)
    learner = member._mlsystem
    if isinstance(learner, SystemBase):
        own = [own_entry(part, name) for part in (y, outputs, weight)]
        value, taken = member.loss(x, *own, training=training), learner.losses.taken
        return Loss(value, reduction.common(map(taken.sizes.get, taken.losses)))
    found = reduction.of_model(member, name, batch, outputs, training)
    if found.size is None and learner.own_loss.compares:
        found.size = reduction.own_size(y, name)
    return found


def _layer_losses(learner: SystemBase) -> dict[str, Any]:
    """Return regularizers and `add_loss` of each member's layers, and of the system itself."""
    known: LayerLosses = learner.layer_losses
    found = {name: member.losses for name, member in known.members.items()}
    found["self"] = [
        *_keras.own_losses(learner.model),
        *(loss for layer in known.layers for loss in layer.losses),
        *(weight.regularizer(weight) for weight in known.weights if weight.trainable),
    ]
    return {name: reduction.total(extra) for name, extra in found.items() if extra}


def layer_losses(learner: SystemBase) -> LayerLosses:
    """Return what has losses of layers. Nested systems count their own."""
    system = learner.model
    direct, inside = members.direct(system), learner.nested
    known = {id(member) for member in direct.values()}
    others = [layer for layer in system.layers if id(layer) not in known]
    held = {id(v) for layer in [*direct.values(), *others] for v in layer.variables}
    own = [v for v in system.weights if v.regularizer and id(v) not in held]
    learners = {n: _learner.of(member) for n, member in direct.items() if n not in inside}
    adding = [n for n, inner in learners.items() if inner and inner.own_loss.adds_regularizers]
    return LayerLosses({n: direct[n] for n in learners if n not in adding}, others, own)


def _with_nested(
    inside: Mapping[str, Any], values: dict[str, Any], found: dict[str, Loss]
) -> LossValues:
    """Add the losses of the nested systems, under their path."""
    flat = {f"{n}_{term}": v for n, loss in found.items() for term, v in loss.terms.items()}
    owners = {f"{n}_{term}": n for n, loss in found.items() for term in loss.terms}
    parts = {f"{n}/{term}": v for n, loss in found.items() for term, v in loss.terms.items()}
    sizes = {n: loss.size for n, loss in found.items()}
    sizes |= {f"{n}_{term}": s for n, loss in found.items() for term, s in loss.sizes.items()}
    for name, inner in inside.items():
        taken, inner._mlsystem.losses = inner._mlsystem.losses.taken, ForwardLosses()
        if name in values and taken is not None:
            values |= {f"{name}/{n}": value for n, value in taken.losses.items()}
            flat |= {f"{name}/{n}": value for n, value in taken.terms.items()}
            sizes |= {f"{name}/{n}": size for n, size in taken.sizes.items()}
            owners |= {f"{name}/{n}": f"{name}/{owner}" for n, owner in taken.owners.items()}
            parts |= {f"{name}/{n}": value for n, value in taken.parts.items()}
    return LossValues(values, flat, owners, sizes, parts=parts)

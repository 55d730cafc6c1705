"""The losses of a system: of its members, of the system itself, and of its nested systems."""

from collections.abc import Mapping
from typing import Any

from mlsystem import _keras, _learner
from mlsystem._errors import named_in_errors
from mlsystem._learner import SystemBase
from mlsystem._signature import call_loss, extras
from mlsystem.data.batch import Batch, own_entry
from mlsystem.losses import reduction
from mlsystem.losses.loss_values import ForwardLosses, LossValues
from mlsystem.losses.reduction import Loss
from mlsystem.routing import members


def member_losses(learner: SystemBase, batch: Batch, outputs: Any, training: Any) -> dict[str, Any]:
    """Compute each member's loss, its own or the one from `compile`, under the member's name."""
    given = learner.wiring.losses if learner.wiring else {}
    direct = members.direct(learner.model)
    found = {
        name: _member_loss(name, direct[name], given.get(name), batch, outputs, training)
        for name in direct
        if name in given or has_own_loss(direct[name])
    }
    learner.losses.of_members |= found
    learner.losses.weighted |= set(found)
    return {name: loss.value for name, loss in found.items()}


def has_own_loss(member: Any) -> bool:
    """Return whether a member has its own loss.

    The loss of a plain Keras model does not count, because it may be for another purpose.
    """
    learner = _learner.of(member)
    return learner is not None and learner.has_loss()


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
    found = reduction.of_model(member, x, y, outputs, weight, training)
    if found.size is None and learner.compares_targets():
        found.size = reduction.own_size(y, member.key)
    return found


def find(learner: SystemBase, batch: Batch, outputs: Any, training: bool) -> LossValues:
    """Compute all losses after one forward pass, as scalars, with their named terms."""
    system = learner.model
    of_layers, inside = _layer_losses(learner), members.nested(system)
    for part in (learner, *(inner._mlsystem for inner in inside.values())):
        part.losses = ForwardLosses()
    offered = extras(system.compute_losses, sample_weight=batch.sample_weight, training=training)
    with named_in_errors(
        f"{type(system).__name__}.compute_losses", outputs=outputs, y=batch.y, x=batch.x
    ):
        given = call_loss(system, "compute_losses", (batch.x, batch.y, outputs), offered)
    weighted = learner.losses.weighted if "sample_weight" not in offered else set(given)
    found = reduction.named(given, type(system).__name__, batch, weighted)
    of_members = learner.losses.of_members
    found = {n: _with_terms(loss, of_members.get(n)) for n, loss in found.items()}
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


def _with_terms(loss: Loss, of_member: Loss | None) -> Loss:
    """Add the terms and the size of the member's own loss, unless the loss has its own terms."""
    if of_member is None or loss.terms:
        return loss
    size = of_member.size if loss.size is None else loss.size
    return Loss(loss.value, size, of_member.terms, of_member.sizes)


def _layer_losses(learner: SystemBase) -> dict[str, Any]:
    """Return regularizers and `add_loss` of each member's layers, and of the system itself."""
    by_member, others, own = _layers(learner.model)
    found = {name: member.losses for name, member in by_member.items()}
    found["self"] = [
        *_keras.own_losses(learner.model),
        *(loss for layer in others for loss in layer.losses),
        *(weight.regularizer(weight) for weight in own if weight.trainable),
    ]
    return {name: reduction.total(extra) for name, extra in found.items() if extra}


def _layers(system: Any) -> tuple[dict[str, Any], list[Any], list[Any]]:
    """Return the members whose layer losses count here, other layers, and regularized weights."""
    direct, inside = members.direct(system), members.nested(system)  # nested ones count their own
    known = {id(member) for member in direct.values()}
    others = [layer for layer in system.layers if id(layer) not in known]  # without weights
    held = {id(v) for layer in others for v in layer.weights}
    own = [v for v in members.Own(system).weights if v.regularizer and id(v) not in held]
    counted = {
        name: member
        for name, member in direct.items()
        if name not in inside and not _counts_layer_losses(member)
    }
    return counted, others, own


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


def _counts_layer_losses(member: Any) -> bool:
    learner = _learner.of(member)
    return learner is not None and learner.counts_layer_losses()

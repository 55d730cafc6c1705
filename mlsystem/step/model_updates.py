"""Apply each model's gradients by its own optimizer."""

import functools
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from keras import ops

from mlsystem._learner import Learner, not_set_up
from mlsystem._tensors import describe
from mlsystem.engine import engine, select
from mlsystem.losses.loss_values import LossValues
from mlsystem.optimizers import optimizer_properties
from mlsystem.routing import model_names
from mlsystem.step import context, update_conditions
from mlsystem.step.routed_gradients import Gradients


def due(learner: Learner, models: Any) -> list[str]:
    """Return the named models that are updated on this batch, all models by default."""
    context.check_branch(learner)
    if learner.setup is None and learner.model.optimizer is None:
        raise not_set_up(learner.name)
    on_batch = learner.compiled.due
    return [name for name in named(learner, models) if on_batch is None or name in on_batch]


def named(learner: Learner, models: Any) -> list[str]:
    """Return the trained models of these names or groups, all trained models by default."""
    trained = learner.models()
    if models is None:
        return list(trained)
    if isinstance(models, (list, dict)) and all(
        isinstance(name, str) and name in trained for name in models
    ):
        return list(dict.fromkeys(models))
    known = learner.known_models()
    return [name for name in model_names.resolve(models, known, "models") if name in trained]


def apply(learner: Learner, gradients: Mapping[str, Any], names: Sequence[str]) -> dict[str, Any]:
    """Apply gradients. Return, by model, the condition under which it was updated."""
    this = learner.step
    zeros = {id(z) for z in [*(this.zeros if this else ()), *getattr(gradients, "zeros", ())]}
    found = {n: [None if id(g) in zeros else g for g in gradients[n]] for n in names}
    finite = learner.finite(found)
    whole = functools.reduce(select.both, finite.values(), learner.condition)
    _put_back(this, gradients, whole)
    if asked := _asked(learner, this, names):
        _put_back(this, gradients, whole)  # what the conditions of the user assigned
    wanted = {name: _wanted(learner, this, name, asked, finite[name]) for name in names}
    updated = {n: select.both(wanted[n], finite[n]) for n in names}
    moved = _move(learner, found, wanted, updated)
    learner.follow({n: c for n, c in moved.items() if any(g is not None for g in found[n])})
    for taken, condition in this.ledger.settle(updated) if this else ():
        _call_then(learner, taken, condition)
    return updated


def check_table(gradients: Any) -> None:
    """Raise an error if `gradients` is not a dict of gradients by model."""
    is_table = isinstance(gradients, Mapping)
    if not is_table or not all(isinstance(g, Iterable) for g in gradients.values()):
        raise TypeError(
            f"apply_gradients got {describe(gradients)}. Give {{model: [gradient per "
            "trainable weight]}, as self.gradients(data) returns."
        )


def _put_back(this: context.Step | None, gradients: Mapping[str, Any], condition: Any) -> None:
    """Restore the variables that `forward` assigned, unless a condition holds."""
    if condition is None:
        return
    pending = this.ledger.pending if this else {}
    found = [pending[name][1] for name in gradients if name in pending]
    found = [gradients.taken] if isinstance(gradients, Gradients) else found
    for taken in {id(taken): taken for taken in found}.values():
        select.keep(condition, taken.before, engine.changed)


def _asked(learner: Learner, this: context.Step | None, names: Iterable[str]) -> dict[str, Any]:
    """Return the condition of each model that has an `update_when`."""
    conditions = learner.setup.conditions if learner.setup and this else {}
    found = {}
    for name in names:
        if name in conditions and this and name in this.ledger.pending:
            _, taken = this.ledger.pending[name]
            if taken.whole:
                losses = taken.losses | taken.terms
                found[name] = update_conditions.ask(name, conditions[name], losses)
    return found


def _wanted(
    learner: Learner, this: context.Step | None, name: str, asked: Mapping[str, Any], finite: Any
) -> Any:
    """Return the condition for updating a model. Log the share of updates by `update_when`."""
    if name not in asked or this is None:
        return learner.condition
    share = ops.cast(select.both(asked[name], finite), "float32")
    owner = f"the share of updates of '{name}'"
    context.track(learner, f"{name}_updated", owner, share, this.batch.size)
    return select.both(learner.condition, asked[name])


def _move(
    learner: Learner,
    found: Mapping[str, list[Any]],
    wanted: Mapping[str, Any],
    updated: Mapping[str, Any],
) -> dict[str, Any]:
    """Apply the gradients of each model. Return the conditions under which its weights changed."""
    moved, optimizers, members = {}, learner.optimizers, learner.members()
    for name, gradients in found.items():
        optimizer, weights = optimizers[name], members[name].trainable_weights
        check_fit(name, gradients, weights)
        if optimizer_properties.is_plain(optimizer):
            _apply_plainly(optimizer, gradients, weights, updated[name])
            moved[name] = updated[name]
        else:
            reached = learner.compiled.reached
            conditions = wanted[name], updated[name]
            moved[name] = _apply_to(optimizer, gradients, weights, reached, *conditions)
    return moved


def _apply_plainly(
    optimizer: Any, found: list[Any], weights: Sequence[Any], condition: Any
) -> None:
    pairs = [(g, w) for g, w in zip(found, weights, strict=True) if g is not None]
    if pairs:
        gradients, reached = zip(*pairs, strict=True)
        engine.apply(optimizer, list(gradients), list(reached), condition)


def _apply_to(
    optimizer: Any,
    found: list[Any],
    weights: Sequence[Any],
    known: set[int],
    wanted: Any,
    condition: Any,
) -> Any:
    """Apply gradients by an optimizer that scales the loss, accumulates or has several inside."""
    if optimizer_properties.scales(optimizer):
        condition = wanted  # it lowers its scale when gradients are not finite
    reached, weights = applicable(optimizer, found, weights, known)
    if not reached:
        return condition
    before = optimizer_properties.updates(optimizer)
    engine.apply(optimizer, reached, weights, condition)
    return condition if before is None else ops.not_equal(optimizer.iterations, before)


def _call_then(learner: Learner, taken: LossValues, condition: Any) -> None:
    """Run the balance's own updates, if the gradients were applied."""
    if taken.then:
        held, how = learner.balance.variables, (engine.kept, engine.changed)
        with select.only(condition, held, *how):
            while taken.then:
                taken.then.pop(0)()


def check_fit(name: str, found: Sequence[Any], weights: Sequence[Any]) -> None:
    """Raise an error if the gradients do not match the weights of a model."""
    if len(found) != len(weights):
        raise ValueError(
            f"apply_gradients got {len(found)} gradients for '{name}', "
            f"which has {len(weights)} trainable weights."
        )
    for gradient, weight in zip(found, weights, strict=True):
        if gradient is None or gradient.shape == weight.shape:
            continue
        if _differ(gradient.shape, weight.shape):
            raise ValueError(
                f"apply_gradients got a gradient of shape {tuple(gradient.shape)} for the weight "
                f"'{weight.path}' of '{name}', whose shape is {tuple(weight.shape)}."
            )


def _differ(found: Any, expected: tuple[int, ...]) -> bool:
    """Return whether two shapes differ in a known dimension. TensorFlow may not know all."""
    if getattr(found, "rank", 0) is None:
        return False
    pairs = zip(found, expected, strict=False)
    return len(found) != len(expected) or any(a != b for a, b in pairs if a is not None)


def applicable(
    optimizer: Any, found: list[Any], weights: Sequence[Any], reached: set[int]
) -> tuple[list[Any], list[Any]]:
    """Return the gradients that exist, as the optimizer needs them, and their weights.

    An optimizer that accumulates gradients clears the sums of all weights when it updates. It gets
    a zero for a weight without a gradient that another loss has `reached`. An optimizer made of
    several optimizers gets zeros for all weights.
    """
    pairs = list(zip(found, weights, strict=True))
    now = {id(w) for g, w in pairs if g is not None}
    reached |= now
    whole = optimizer_properties.wants_all(optimizer)
    if now and (whole or optimizer_properties.accumulates(optimizer)):
        filled = {id(w) for w in weights} if whole else reached
        pairs = [
            (ops.zeros(w.shape, w.dtype) if g is None and id(w) in filled else g, w)
            for g, w in pairs
        ]
    pairs = [(g, w) for g, w in pairs if g is not None]
    return _scaled(optimizer, [g for g, _ in pairs]), [w for _, w in pairs]


def _scaled(optimizer: Any, found: list[Any]) -> list[Any]:
    """Multiply gradients by the optimizer's scale, because the optimizer divides by it."""
    scale = optimizer_properties.scale(optimizer)
    return found if scale is None else [g * ops.cast(scale, g.dtype) for g in found]

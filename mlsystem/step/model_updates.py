"""The second half of a step: each model's optimizer applies the model's gradients."""

import functools
from collections.abc import Iterable, Mapping
from typing import Any

from keras import ops

from mlsystem import engine
from mlsystem._learner import Learner
from mlsystem._tensors import describe
from mlsystem.engine import select
from mlsystem.losses.found import Taken
from mlsystem.optimizers import properties
from mlsystem.routing import model_names
from mlsystem.step import conditional, context
from mlsystem.step.routed_gradients import Gradients, applicable, check_fit, existing


def due(learner: Learner, models: Any) -> list[str]:
    """Those of the named models that are updated on this batch; of all by default."""
    context.check_branch(learner)
    on_batch = learner.compiled.due
    return [name for name in named(learner, models) if on_batch is None or name in on_batch]


def named(learner: Learner, models: Any) -> list[str]:
    """The trained models that are named, groups spelled out; all by default."""
    trained = learner.models()
    if models is None:
        return list(trained)
    known = learner.known_models()
    return [name for name in model_names.resolve(models, known, "models") if name in trained]


def apply(learner: Learner, gradients: Mapping[str, Any]) -> dict[str, Any]:
    """Applies gradients; returns, by model, the condition under which it was updated."""
    is_table = isinstance(gradients, Mapping)
    if not is_table or not all(isinstance(g, Iterable) for g in gradients.values()):
        raise TypeError(
            f"apply_gradients got {describe(gradients)}. Give {{model: [gradient per "
            "trainable weight]}, as self.gradients(data) returns."
        )
    zeros = this.zeros if (this := context.of(learner)) else ()
    found = {name: existing(gradients, name, zeros) for name in due(learner, gradients)}
    finite = learner.finite(found)
    _put_back(learner, gradients, functools.reduce(select.both, finite.values(), learner.condition))
    asked = {name: _asked(learner, name, condition) for name, condition in finite.items()}
    wanted = {name: select.both(learner.condition, c) for name, c in asked.items()}
    updated = {n: select.both(c, finite[n]) for n, c in wanted.items()}
    moved = {n: _apply_to(learner, n, found[n], wanted[n], c) for n, c in updated.items()}
    learner.follow({n: c for n, c in moved.items() if any(g is not None for g in found[n])})
    if this:
        _settle(learner, this, updated)
    return updated


def _put_back(learner: Learner, gradients: Mapping[str, Any], condition: Any) -> None:
    """Undoes what `forward` has assigned, unless a condition holds."""
    this = context.of(learner)
    pending = this.ledger.pending if this else {}
    found = [pending[name][1] for name in gradients if name in pending]
    found = [gradients.taken] if isinstance(gradients, Gradients) else found
    for taken in {id(taken): taken for taken in found if condition is not None}.values():
        select.keep(condition, taken.before, engine.chosen.changed)


def _asked(learner: Learner, name: str, finite: Any) -> Any:
    """The condition of `update_when` for a model; None where there is none."""
    condition = learner.setup.conditions.get(name) if learner.setup else None
    this = context.of(learner)
    if condition is None or this is None or name not in this.ledger.pending:
        return None
    _, taken = this.ledger.pending[name]
    if not taken.whole:
        return None
    wanted = conditional.ask(name, condition, taken.losses | taken.terms)
    share = ops.cast(select.both(wanted, finite), "float32")
    owner = f"the share of updates of '{name}'"
    context.track(learner, f"{name}_updated", owner, share, this.batch.size)
    return wanted


def _apply_to(learner: Learner, name: str, found: list[Any], wanted: Any, finite: Any) -> Any:
    """Applies the gradients of a model; returns the condition under which its weights moved."""
    weights = learner.models()[name].trainable_weights
    check_fit(name, found, weights)
    optimizer = learner.optimizers[name]
    # One that scales the loss lowers its scale by what is not finite.
    condition = wanted if properties.scales(optimizer) else finite
    reached, weights = applicable(optimizer, found, weights, learner.compiled.reached)
    if not reached:
        return condition
    before = properties.updates(optimizer)
    engine.chosen.apply(optimizer, reached, weights, condition)
    return condition if before is None else ops.not_equal(optimizer.iterations, before)


def _settle(learner: Learner, this: context.Step, updated: Mapping[str, Any]) -> None:
    """Counts the losses that models follow, where one of these models was updated."""
    for taken, condition in this.ledger.settle(updated):
        _call_then(learner, taken, condition)


def _call_then(learner: Learner, taken: Taken, condition: Any) -> None:
    """Lets the balance learn of what was applied, where it was."""
    if taken.then:
        held, how = learner.balance.variables, (engine.chosen.kept, engine.chosen.changed)
        with select.only(condition, held, *how):
            while taken.then:
                taken.then.pop(0)()

"""The second half of a step: each model's optimizer applies the model's gradients."""

import functools
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from keras import ops

from mlsystem._learner import Learner
from mlsystem._tensors import describe
from mlsystem.engine import engine, select
from mlsystem.losses.found import Taken
from mlsystem.optimizers import properties
from mlsystem.routing import model_names
from mlsystem.step import conditional, context
from mlsystem.step.routed_gradients import Gradients


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
    if not isinstance(models, str) and all(name in trained for name in models):
        return list(dict.fromkeys(models))
    known = learner.known_models()
    return [name for name in model_names.resolve(models, known, "models") if name in trained]


def apply(learner: Learner, gradients: Mapping[str, Any], names: Sequence[str]) -> dict[str, Any]:
    """Applies gradients; returns, by model, the condition under which it was updated."""
    this = learner.step
    zeros = {id(z) for z in [*(this.zeros if this else ()), *getattr(gradients, "zeros", ())]}
    found = {n: [None if id(g) in zeros else g for g in gradients[n]] for n in names}
    finite, asked = learner.finite(found), _asked(learner, this, names)
    _put_back(this, gradients, functools.reduce(select.both, finite.values(), learner.condition))
    wanted = {name: _wanted(learner, this, name, asked, finite[name]) for name in names}
    updated = {n: select.both(wanted[n], finite[n]) for n in names}
    moved = _move(learner, found, wanted, updated)
    learner.follow({n: c for n, c in moved.items() if any(g is not None for g in found[n])})
    for taken, condition in this.ledger.settle(updated) if this else ():
        _call_then(learner, taken, condition)
    return updated


def check_table(gradients: Any) -> None:
    """Refuses what is no table of gradients by model."""
    is_table = isinstance(gradients, Mapping)
    if not is_table or not all(isinstance(g, Iterable) for g in gradients.values()):
        raise TypeError(
            f"apply_gradients got {describe(gradients)}. Give {{model: [gradient per "
            "trainable weight]}, as self.gradients(data) returns."
        )


def _put_back(this: context.Step | None, gradients: Mapping[str, Any], condition: Any) -> None:
    """Undoes what `forward` has assigned, unless a condition holds."""
    if condition is None:
        return
    pending = this.ledger.pending if this else {}
    found = [pending[name][1] for name in gradients if name in pending]
    found = [gradients.taken] if isinstance(gradients, Gradients) else found
    for taken in {id(taken): taken for taken in found}.values():
        select.keep(condition, taken.before, engine.changed)


def _asked(learner: Learner, this: context.Step | None, names: Iterable[str]) -> dict[str, Any]:
    """What `update_when` says of the models that it names."""
    conditions = learner.setup.conditions if learner.setup and this else {}
    found = {}
    for name in names:
        if name in conditions and this and name in this.ledger.pending:
            _, taken = this.ledger.pending[name]
            if taken.whole:
                losses = taken.losses | taken.terms
                found[name] = conditional.ask(name, conditions[name], losses)
    return found


def _wanted(
    learner: Learner, this: context.Step | None, name: str, asked: Mapping[str, Any], finite: Any
) -> Any:
    """Whether a model is to be updated. The share of what its `update_when` says is logged."""
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
    """Applies the gradients of each model; returns the conditions under which its weights moved."""
    moved, optimizers, members = {}, learner.optimizers, learner.ready.members
    for name, gradients in found.items():
        optimizer, weights = optimizers[name], members[name].trainable_weights
        check_fit(name, gradients, weights)
        if properties.is_plain(optimizer):
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
    """Applies gradients by an optimizer that scales the loss, accumulates or is made of several."""
    if properties.scales(optimizer):
        condition = wanted  # it lowers its scale by what is not finite
    reached, weights = applicable(optimizer, found, weights, known)
    if not reached:
        return condition
    before = properties.updates(optimizer)
    engine.apply(optimizer, reached, weights, condition)
    return condition if before is None else ops.not_equal(optimizer.iterations, before)


def _call_then(learner: Learner, taken: Taken, condition: Any) -> None:
    """Lets the balance learn of what was applied, where it was."""
    if taken.then:
        held, how = learner.balance.variables, (engine.kept, engine.changed)
        with select.only(condition, held, *how):
            while taken.then:
                taken.then.pop(0)()


def check_fit(name: str, found: Sequence[Any], weights: Sequence[Any]) -> None:
    """Refuses gradients that are not those of the weights of a model."""
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
    """Whether two shapes differ, as far as they are known: TensorFlow may not know all."""
    if getattr(found, "rank", 0) is None:
        return False
    pairs = zip(found, expected, strict=False)
    return len(found) != len(expected) or any(a != b for a, b in pairs if a is not None)


def applicable(
    optimizer: Any, found: list[Any], weights: Sequence[Any], reached: set[int]
) -> tuple[list[Any], list[Any]]:
    """The gradients that exist, as the optimizer wants them, and their weights.

    An optimizer that accumulates gradients empties the sums of all weights when it updates, and
    adds a zero to the sum of a weight that another loss has `reached`. One that is made of several
    gets zeros for all.
    """
    pairs = list(zip(found, weights, strict=True))
    now = {id(w) for g, w in pairs if g is not None}
    reached |= now
    whole = properties.wants_all(optimizer)
    if now and (whole or properties.accumulates(optimizer)):
        filled = {id(w) for w in weights} if whole else reached
        pairs = [
            (ops.zeros(w.shape, w.dtype) if g is None and id(w) in filled else g, w)
            for g, w in pairs
        ]
    pairs = [(g, w) for g, w in pairs if g is not None]
    return _scaled(optimizer, [g for g, _ in pairs]), [w for _, w in pairs]


def _scaled(optimizer: Any, found: list[Any]) -> list[Any]:
    """Gradients as the optimizer wants them: it divides them by its scale."""
    scale = properties.scale(optimizer)
    return found if scale is None else [g * ops.cast(scale, g.dtype) for g in found]

"""Apply each model's gradients by its own optimizer."""

import contextlib
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from keras import ops

from mlsystem._errors import named_in_errors
from mlsystem._learner import Learner, not_set_up
from mlsystem._tensors import describe
from mlsystem.engine import engine, select
from mlsystem.optimizers import member_rates, optimizer_properties
from mlsystem.routing import model_names
from mlsystem.step import context
from mlsystem.step.loss_values import LossValues
from mlsystem.step.routed_gradients import Gradients


def due(learner: Learner, this: context.Running, models: Any) -> dict[str, Any]:
    """Return the named models that are updated on this batch, all models by default."""
    if this is not None and this.trace != engine.trace():
        raise ValueError(
            f"'{learner.name}' is updated inside `ops.cond`, or a loop such as `ops.scan`, where "
            "weights cannot change. Update it outside, with the condition as `when=`: "
            "`self.update(data, when=condition)`. `minimize` and `apply_gradients` take `when` "
            "too. Write loops in Python."
        )
    if learner.setup is None and learner.model.optimizer is None:
        raise not_set_up(learner.name)
    on_batch, found = learner.compiled.due, named(learner, models)
    return found if on_batch is None else {n: m for n, m in found.items() if n in on_batch}


def named(learner: Learner, models: Any) -> dict[str, Any]:
    """Return the trained models of these names or groups, all trained models by default."""
    trained = learner.models()
    if models is None:
        return trained
    is_plain = isinstance(models, (list, dict)) and all(isinstance(name, str) for name in models)
    if not is_plain or not all(name in trained for name in models):
        models = model_names.resolve(models, learner.known_models(), "models")
    return {name: trained[name] for name in models if name in trained}


def apply(
    learner: Learner, this: context.Running, gradients: Mapping[str, Any], models: dict[str, Any]
) -> dict[str, Any]:
    """Apply the gradients of some models that have any.

    Returns, by model, the condition under which it was updated. None: it was.
    """
    zeros = {id(z) for z in [*(this.zeros if this else ()), *getattr(gradients, "zeros", ())]}
    names = [name for name in models if name in gradients]
    found = {n: [None if id(g) in zeros else g for g in gradients[n]] for n in names}
    finite = learner.finite(this, found)
    whole = select.all_of([learner.condition, *finite.values()])
    _put_back(this, gradients, whole)
    if asked := _asked(learner, this, names):
        _put_back(this, gradients, whole)  # what the conditions of the user assigned
    wanted = dict.fromkeys(names, learner.condition)
    wanted |= {n: _wanted(this, n, asked[n], finite[n]) for n in asked}
    updated = {name: select.all_of([wanted[name], finite[name]]) for name in names}
    moved = _move(learner, models, found, wanted, updated)
    learner.follow({n: c for n, c in moved.items() if any(g is not None for g in found[n])})
    for taken, conditions in this.ledger.settle(updated) if this else ():
        if taken.then:
            _call_then(learner, taken, conditions)
    return updated


def check_table(gradients: Any) -> None:
    """Raise an error if `gradients` is not a dict of gradients by model."""
    is_table = isinstance(gradients, Mapping)
    if not is_table or not all(isinstance(g, Iterable) for g in gradients.values()):
        raise TypeError(
            f"apply_gradients got {describe(gradients)}. Give {{model: [gradient per "
            "trainable weight]}, as self.gradients(data) returns."
        )


def _put_back(this: context.Running, gradients: Mapping[str, Any], condition: Any) -> None:
    """Restore the variables that `forward` assigned, unless a condition holds."""
    if condition is None:
        return
    pending = this.ledger.pending if this else {}
    found = [pending[name][1] for name in gradients if name in pending]
    found = [gradients.taken] if isinstance(gradients, Gradients) else found
    for taken in {id(taken): taken for taken in found if taken.before}.values():
        select.keep(condition, taken.before, engine.changed)


def _asked(learner: Learner, this: context.Running, names: Iterable[str]) -> dict[str, Any]:
    """Return the condition of each model that has an `update_when`."""
    if this is None or learner.setup is None or not learner.setup.conditions:
        return {}
    conditions, pending = learner.setup.conditions, this.ledger.pending
    losses = {n: pending[n][1] for n in names if n in conditions and n in pending}
    return {
        name: _ask(name, conditions[name], taken.losses | taken.terms)
        for name, taken in losses.items()
        if taken.whole
    }


def _ask(name: str, condition: Any, losses: Mapping[str, Any]) -> Any:
    """Return the condition for updating a model, from its function in `update_when`."""
    with named_in_errors(f"update_when of '{name}'", losses=losses):
        wanted = condition(losses)
    if wanted is None:
        raise ValueError(f"update_when of '{name}' returned None. Does it end in a `return`?")
    return select.scalar(wanted, f"The condition that update_when gives for '{name}'")


def _wanted(this: Any, name: str, asked: Any, finite: Any) -> Any:
    """Return the condition for updating a model. Log the share of updates by `update_when`."""
    share = ops.cast(select.all_of([asked, finite]), "float32")
    owner = f"the share of updates of '{name}'"
    context.track(this, f"{name}_updated", owner, share, this.batch.size)
    return select.all_of([this.learner.condition, asked])


def _move(
    learner: Learner,
    models: Mapping[str, Any],
    found: Mapping[str, list[Any]],
    wanted: Mapping[str, Any],
    updated: Mapping[str, Any],
) -> dict[str, Any]:
    """Apply the gradients of each model. Return the conditions under which its weights changed."""
    moved, optimizers = {}, learner.optimizers
    for name, gradients in found.items():
        optimizer, weights = optimizers[name], models[name].trainable_weights
        _check_fit(name, gradients, weights)
        rates = learner.rates_of_members.get(name)
        with contextlib.nullcontext() if rates is None else member_rates.scaled(weights, rates):
            if optimizer_properties.is_plain(optimizer):
                moved[name] = _apply_plainly(optimizer, gradients, weights, updated[name])
            else:
                reached, conditions = learner.compiled.reached, (wanted[name], updated[name])
                moved[name] = _apply_to(optimizer, gradients, weights, reached, *conditions)
    return moved


def _apply_plainly(optimizer: Any, found: list[Any], weights: list[Any], condition: Any) -> Any:
    pairs = [(g, w) for g, w in zip(found, weights, strict=True) if g is not None]
    if pairs:
        gradients, reached = zip(*pairs, strict=True)
        engine.apply(optimizer, list(gradients), list(reached), condition)
    return condition


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
    reached, weights = _applicable(optimizer, found, weights, known)
    if not reached:
        return condition
    before = optimizer_properties.updates(optimizer)
    engine.apply(optimizer, reached, weights, condition)
    return condition if before is None else ops.not_equal(optimizer.iterations, before)


def _call_then(learner: Learner, taken: LossValues, conditions: list[Any]) -> None:
    """Run the balance's own updates, if the gradients of a model were applied."""
    held, how = learner.balance.variables, (engine.kept, engine.changed)
    with select.only(select.any_of(conditions), held, *how):
        while taken.then:
            taken.then.pop(0)()


def _check_fit(name: str, found: Sequence[Any], weights: Sequence[Any]) -> None:
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


def _applicable(
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

"""Compute each model's gradients, from the losses it follows, for its own weights only.

A weight that no loss reaches has no gradient. Users see a zero instead. `apply_gradients`
recognizes this zero and leaves the weight alone.
"""

import functools
import warnings
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

from keras import ops

from mlsystem._learner import Learner
from mlsystem.engine import engine
from mlsystem.optimizers import optimizer_properties
from mlsystem.routing import loss_weights, routing_table
from mlsystem.routing.routing_table import Row
from mlsystem.step import context, replica_means
from mlsystem.step.loss_values import LossValues

Forward = Callable[[], tuple[LossValues, Any]]
Rows = Callable[[Sequence[str]], routing_table.Rows]


@dataclass
class Pass:
    """One backward pass: the losses of a row and the models whose weights get gradients.

    Attributes:
        row: the losses with their factors.
        models: the names of the models.
        loss: the single loss of this pass, set by a balance of several losses.
        looked_at: whether the gradients are only inspected and update nothing.
    """

    row: Row
    models: list[str]
    loss: str | None = None
    looked_at: bool = False


class Gradients(dict[str, Any]):
    """`{model: [gradient per trainable weight]}`, with the losses and outputs behind them.

    `zeros` are the zero gradients of weights that no loss reaches.
    """

    def __init__(
        self, gradients: dict[str, Any], taken: LossValues, outputs: Any, zeros: Sequence[Any] = ()
    ) -> None:
        super().__init__(gradients)
        self.taken, self.outputs, self.zeros = taken, outputs, list(zeros)


class _Losses:
    """The losses of one forward pass, in the form that an engine needs, with their extras."""

    def __init__(self, this: context.Running, forward: Forward) -> None:
        self.this, self.forward = this, forward
        self.taken = LossValues()

    def __call__(self) -> Any:
        """Run the forward pass. Return the losses with their parts, and the auxiliary values."""
        if self.this is None:
            self.taken, outputs = self.forward()
        else:
            self.this.depth += 1  # losses are computed for a gradient
            try:
                self.taken, outputs = self.forward()
            finally:
                self.this.depth -= 1
        return self.taken.losses | self.taken.parts, (self.taken.terms, outputs)

    def names(self, losses: Mapping[str, Any]) -> list[str]:
        """Return the names of the losses without their parts."""
        return [name for name in losses if name not in self.taken.parts]

    def computed(self, losses: Mapping[str, Any], terms: dict[str, Any]) -> LossValues:
        """Return the losses with the engine's values instead of traced values."""
        values = {name: losses[name] for name in self.names(losses)}
        return replace(self.taken, losses=values, terms=terms, parts={}, before=[], then=[])


def take(
    learner: Learner,
    this: context.Running,
    forward: Forward,
    rows: Rows,
    models: Mapping[str, Any],
    balance: Any = None,
) -> Gradients:
    """Run `forward` once and compute, for each model, the gradient of the losses in its row.

    Args:
        learner: the learner of the model or system.
        this: its running step. None outside of a step.
        forward: runs the forward pass and returns its losses and outputs.
        rows: returns the row of each model, from the names of the losses.
        models: the models by name.
        balance: chooses the backward passes and merges their gradients. None for no balance.
    """
    found = _Losses(this, forward)
    passes: list[Pass] = []
    table: routing_table.Rows = {}
    weights = {name: model.trainable_weights for name, model in models.items()}
    scales = optimizer_properties.scales_of(learner.optimizers, models)

    def weighed(one: Pass, losses: dict[str, Any]) -> dict[str, Any]:
        start, seen = _least(scales, one), learner.batches_seen
        row = one.row.items()
        return {n: loss_weights.product(factors, start, seen, losses[n]) for n, factors in row}

    def into(one: Pass) -> list[Any]:
        return [weight for name in one.models for weight in weights[name]]

    def plan(losses: dict[str, Any]) -> Any:
        known = found.names(losses)
        followed = rows(known)
        table.update({name: followed[name] for name in models})
        made = [Pass(row, group) for row, group in routing_table.groups(table, scales)]
        passes.extend(made if balance is None else balance.passes(made, known))
        return [(weighed(one, losses), into(one)) for one in passes]

    state = learner.restorable()
    before = [(variable, engine.kept(variable.value)) for variable in state]
    losses, (terms, outputs), rows_of = engine.gradients(found, plan, learner.state_variables)
    taken = replace(found.computed(losses, terms), before=before)
    taken = replica_means.of_losses(taken, None if this is None else this.batch)
    pairs = zip(passes, rows_of, strict=True)
    parts = [_by_model(one, weights, scales, row) for one, row in pairs]
    if balance is not None:
        merged = balance.merged(learner, passes, parts, taken)
    else:
        merged = {name: mine for part in parts for name, mine in part.items()}
    gradients = _filled(learner, weights, merged, taken, outputs)
    if this is not None and not this.depth:  # else they are differentiated, and not applied
        this.zeros += gradients.zeros
        this.ledger.pend(gradients.taken, table)
    return gradients


def _least(scales: Mapping[str, Any], one: Pass) -> Any:
    """Return the scale of the losses of a backward pass.

    Of several scales it is the smallest. A gradient that is finite at its own scale is finite here.
    """
    found = [scales[name] for name in one.models if name in scales]
    return functools.reduce(ops.minimum, found) if found else 1.0


def _by_model(
    one: Pass, weights: Mapping[str, list[Any]], scales: Mapping[str, Any], found: list[Any]
) -> dict[str, list[Any]]:
    """Split the gradients of a backward pass by model, unscaled. None: no loss reaches a weight."""
    left = iter(found)
    models = {name: [next(left) for _ in weights[name]] for name in one.models}
    if not scales.keys() & models.keys():
        return models
    scale = _least(scales, one)
    return {
        name: [g if g is None else g / ops.cast(scale, g.dtype) for g in mine]
        for name, mine in models.items()
    }


def _filled(
    learner: Learner,
    weights: Mapping[str, list[Any]],
    found: Mapping[str, list[Any]],
    taken: LossValues,
    outputs: Any,
) -> Gradients:
    """Return the gradients of all models, with recorded zeros for weights that no loss reaches."""
    filled = Gradients({}, taken, outputs)
    for name, mine in weights.items():
        if all(g is None for g in found[name]):
            _warn_unreached(learner, name)
        filled[name] = [found[name][i] for i in range(len(mine))]
        for i, weight in enumerate(mine):
            if filled[name][i] is None:
                filled[name][i] = ops.zeros(weight.shape, weight.dtype)
                filled.zeros.append(filled[name][i])
    return filled


def _warn_unreached(learner: Learner, name: str) -> None:
    if name not in learner.compiled.warned:
        learner.compiled.warned.add(name)
        warnings.warn(
            f"None of the losses that '{name}' follows depends on it, so it will not learn. "
            "Check that `forward` calls it and that its routing names the right losses.",
            stacklevel=2,
        )

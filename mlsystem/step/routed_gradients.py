"""Routed gradients: from one forward pass to the gradients of each model's own losses.

A weight that no loss reaches has no gradient. Users see a zero in its place, and what applies
gradients knows that zero and leaves the weight alone.
"""

import warnings
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from keras import ops

from mlsystem import engine
from mlsystem._learner import Learner
from mlsystem.losses.found import Taken
from mlsystem.optimizers import properties
from mlsystem.routing import loss_weights, routing_table
from mlsystem.routing.routing_table import Row
from mlsystem.step import context

Forward = Callable[[], tuple[Taken, Any]]


@dataclass
class Pass:
    """One backward pass: of the losses in a row, into the weights of some models.

    Attributes:
        row: the losses with their factors.
        models: the names of the models.
        loss: the one loss that it is taken for, by who balances several.
        looked_at: whether its gradients are only looked at, and move nothing.
    """

    row: Row
    models: list[str]
    loss: str | None = None
    looked_at: bool = False


class Gradients(dict[str, Any]):
    """`{model: [gradient per trainable weight]}`, with the losses and outputs behind them.

    `zeros` are those of the gradients that stand for none.
    """

    def __init__(
        self, gradients: dict[str, Any], taken: Taken, outputs: Any, zeros: Sequence[Any] = ()
    ) -> None:
        super().__init__(gradients)
        self.taken, self.outputs, self.zeros = taken, outputs, list(zeros)


def existing(gradients: Mapping[str, Any], name: str, known: Sequence[Any] = ()) -> list[Any]:
    """The gradients of a model, None in place of the zeros that stand for none."""
    zeros = {id(zero) for zero in [*known, *getattr(gradients, "zeros", ())]}
    return [None if id(g) in zeros else g for g in gradients[name]]


def take(
    learner: Learner,
    forward: Forward,
    rows: Callable[[Sequence[str]], routing_table.Rows],
    models: Sequence[str],
    balance: Any = None,
) -> Gradients:
    """Runs `forward` once and takes, for each model, the gradient of the losses in its row.

    A `balance` has a say in how these losses are weighed and their gradients put together.
    """
    read: routing_table.Rows = {}
    owners: dict[str, str] = {}
    sizes: dict[str, Any] = {}
    parted: set[str] = set()
    is_whole: list[bool] = []
    passes: list[Pass] = []
    trained = {n: model.trainable_weights for n, model in learner.models().items()}

    def run() -> Any:
        with context.differentiated(learner):
            taken, outputs = forward()
        is_whole.append(taken.whole)
        owners.update(taken.owners)
        sizes.update(taken.sizes)
        parted.update(taken.parts)
        return taken.losses | taken.parts, (taken.terms, outputs)

    def plan(losses: dict[str, Any]) -> Any:
        known = [name for name in losses if name not in parted]
        table = rows(known)
        read.update({name: table[name] for name in models})
        groups = routing_table.groups(read, _are_scaled(learner, models))
        made = [Pass(row, group) for row, group in groups]
        passes.extend(made if balance is None else balance.passes(made, known))
        return [
            (_weights(learner, one, losses), [v for name in one.models for v in trained[name]])
            for one in passes
        ]

    before = [
        (v, engine.chosen.kept(v.value))
        for v in learner.forward_state(learner.condition is not None)
    ]
    losses, (terms, outputs), found = engine.chosen.gradients(run, plan, learner.state_variables())
    losses = {name: value for name, value in losses.items() if name not in parted}
    taken = Taken(losses, terms, owners, sizes, whole=is_whole[-1], before=before)
    parts = [_by_model(learner, trained, one, row) for one, row in zip(passes, found, strict=True)]
    by_model = _joined(parts) if balance is None else balance.merged(learner, passes, parts, taken)
    zeros: list[Any] = []
    whole = {n: _whole(learner, n, trained[n], by_model[n], zeros) for n in models}
    this = context.of(learner)
    if this and not this.depth:  # and not inside a loss, to be differentiated again
        this.zeros += zeros
        this.ledger.pend(taken, read)
    return Gradients(whole, taken, outputs, zeros)


def _are_scaled(learner: Learner, models: Sequence[str]) -> dict[str, bool]:
    return {name: properties.is_scaled(learner.optimizers[name]) for name in models}


def _scale(learner: Learner, one: Pass) -> Any:
    """What the losses of a backward pass are scaled by; None where they are not."""
    return properties.scale(*(learner.optimizers[name] for name in one.models))


def _weights(learner: Learner, one: Pass, losses: dict[str, Any]) -> dict[str, Any]:
    """The weight of each loss in a row, times what the optimizers of the models scale losses by."""
    scale = _scale(learner, one)
    return {n: _product(learner, factors, scale, losses[n]) for n, factors in one.row.items()}


def _product(learner: Learner, factors: tuple[Any, ...], scale: Any, loss: Any) -> Any:
    product = 1.0 if scale is None else scale
    for factor in factors:
        product = product * loss_weights.value(factor, learner.batches_seen, loss.dtype)
    return product


def _by_model(
    learner: Learner, trained: dict[str, list[Any]], one: Pass, found: list[Any]
) -> dict[str, list[Any]]:
    """What one backward pass found, unscaled, by model; None where no loss reaches a weight."""
    scale, models, left = _scale(learner, one), {}, iter(found)
    for name in one.models:
        mine = [next(left) for _ in trained[name]]
        models[name] = [
            g if scale is None or g is None else g / ops.cast(scale, g.dtype) for g in mine
        ]
    return models


def _joined(parts: list[dict[str, list[Any]]]) -> dict[str, list[Any]]:
    return {name: mine for part in parts for name, mine in part.items()}


def _whole(
    learner: Learner, name: str, weights: list[Any], found: list[Any], zeros: list[Any]
) -> list[Any]:
    """One model's gradients, with zeros, which are noted, for weights that no loss depends on."""
    if all(g is None for g in found) and name not in learner.compiled.warned:
        learner.compiled.warned.add(name)
        warnings.warn(
            f"None of the losses that '{name}' follows depends on it, so it will not learn. "
            "Check that `forward` calls it and that its routing names the right losses.",
            stacklevel=2,
        )
    pairs = zip(weights, found, strict=True)
    whole = [_zero(w) if g is None else g for w, g in pairs]
    zeros += [w for w, g in zip(whole, found, strict=True) if g is None]
    return whole


def _zero(weight: Any) -> Any:
    return ops.zeros(weight.shape, weight.dtype)


def check_fit(name: str, found: Sequence[Any], weights: Sequence[Any]) -> None:
    """Refuses gradients that are not those of the weights of a model."""
    if len(found) != len(weights):
        raise ValueError(
            f"apply_gradients got {len(found)} gradients for '{name}', "
            f"which has {len(weights)} trainable weights."
        )
    for gradient, weight in zip(found, weights, strict=True):
        if gradient is not None and _differ(gradient.shape, weight.shape):
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
        pairs = [(_zero(w) if g is None and id(w) in filled else g, w) for g, w in pairs]
    pairs = [(g, w) for g, w in pairs if g is not None]
    return _scaled(optimizer, [g for g, _ in pairs]), [w for _, w in pairs]


def _scaled(optimizer: Any, found: list[Any]) -> list[Any]:
    """Gradients as the optimizer wants them: it divides them by its scale."""
    scale = properties.scale(optimizer)
    return found if scale is None else [g * ops.cast(scale, g.dtype) for g in found]

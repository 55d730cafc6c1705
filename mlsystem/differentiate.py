"""Routed gradients: from one forward pass to the gradients of each model's own losses."""

import warnings
from collections.abc import Callable, Sequence
from typing import Any

from keras import ops

from mlsystem import engine, optimizers, routing, weights
from mlsystem.backward import Pass
from mlsystem.step import Taken

Forward = Callable[[], tuple[Taken, Any]]


class Gradients(dict[str, Any]):
    """`{model: [gradient per trainable weight]}`, with the losses and outputs behind them."""

    def __init__(self, gradients: dict[str, Any], taken: Taken, outputs: Any) -> None:
        super().__init__(gradients)
        self.taken, self.outputs = taken, outputs


def gradients(
    learner: Any,
    forward: Forward,
    rows: Callable[[Sequence[str]], routing.Rows],
    models: Sequence[str],
    balance: Any = None,
) -> tuple[Gradients, routing.Rows]:
    """Runs `forward` once and takes, for each model, the gradient of the losses in its row.

    A `balance` has a say in how these losses are weighed and their gradients put together.
    """
    read: routing.Rows = {}
    owners: dict[str, str] = {}
    passes: list[Pass] = []
    trained = {n: model.trainable_weights for n, model in learner._models().items()}

    def run() -> Any:
        taken, outputs = forward()
        owners.update(taken.owners)
        return taken.losses, (taken.terms, outputs)

    def plan(losses: dict[str, Any]) -> Any:
        table = rows(list(losses))
        read.update({name: table[name] for name in models})
        groups = routing.groups(read, _scaled(learner, models))
        made = [Pass(row, group) for row, group in groups]
        passes.extend(made if balance is None else balance.passes(made, losses))
        return [
            (_weights(learner, one, losses), [v for name in one.models for v in trained[name]])
            for one in passes
        ]

    losses, (terms, outputs), found = engine.chosen.gradients(run, plan, learner._state_variables())
    taken = Taken(losses, terms, owners)
    parts = [_by_model(learner, trained, one, row) for one, row in zip(passes, found, strict=True)]
    by_model = _joined(parts) if balance is None else balance.merged(learner, passes, parts, taken)
    whole = {name: _whole(learner, name, trained[name], by_model[name]) for name in models}
    return Gradients(whole, taken, outputs), read


def _scaled(learner: Any, models: Sequence[str]) -> dict[str, bool]:
    return {name: optimizers.is_scaled(learner.optimizers[name]) for name in models}


def _scale(learner: Any, one: Pass) -> Any:
    """What the losses of a backward pass are scaled by; None where they are not."""
    return optimizers.scale(*(learner.optimizers[name] for name in one.models))


def _weights(learner: Any, one: Pass, losses: dict[str, Any]) -> dict[str, Any]:
    """The weight of each loss in a row, times what the optimizers of the models scale losses by."""
    scale = _scale(learner, one)
    return {n: _product(learner, factors, scale, losses[n]) for n, factors in one.row.items()}


def _product(learner: Any, factors: tuple[Any, ...], scale: Any, loss: Any) -> Any:
    product = 1.0 if scale is None else scale
    for factor in factors:
        product = product * weights.value(factor, learner._batches_seen, loss.dtype)
    return product


def _by_model(
    learner: Any, trained: dict[str, list[Any]], one: Pass, found: list[Any]
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


def _whole(learner: Any, name: str, weights: list[Any], found: list[Any]) -> list[Any]:
    """One model's gradients, with zeros for weights that no loss depends on."""
    if all(g is None for g in found) and name not in learner._run.warned:
        learner._run.warned.add(name)
        warnings.warn(
            f"None of the losses that '{name}' follows depends on it, so it will not learn. "
            "Check that `forward` calls it and that its routing names the right losses.",
            stacklevel=2,
        )
    pairs = zip(weights, found, strict=True)
    return [ops.zeros(w.shape, w.dtype) if g is None else g for w, g in pairs]


def scaled(optimizer: Any, found: list[Any]) -> list[Any]:
    """Gradients as the optimizer wants them: it divides them by its scale."""
    scale = optimizers.scale(optimizer)
    return found if scale is None else [g * ops.cast(scale, g.dtype) for g in found]

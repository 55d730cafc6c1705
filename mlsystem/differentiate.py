"""Routed gradients: from one forward pass to the gradients of each model's own losses."""

import warnings
from collections.abc import Callable, Sequence
from typing import Any

import keras
from keras import ops

from mlsystem import engine, optimizers, routing
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
) -> tuple[Gradients, routing.Rows]:
    """Runs `forward` once and takes, for each model, the gradient of the losses in its row."""
    read: routing.Rows = {}
    owners: dict[str, str] = {}
    groups: list[tuple[routing.Row, list[str]]] = []

    def run() -> Any:
        taken, outputs = forward()
        owners.update(taken.owners)
        return taken.losses, (taken.terms, outputs)

    def plan(losses: dict[str, Any]) -> Any:
        table = rows(list(losses))
        read.update({name: table[name] for name in models})
        groups.extend(routing.groups(read, _scale_keys(learner, models)))
        return [
            (_weights(learner, row, group), _variables(learner, group)) for row, group in groups
        ]

    losses, (terms, outputs), found = engine.chosen.gradients(run, plan, learner._state_variables())
    by_model = _by_model(learner, groups, found)
    taken = Taken(losses, terms, owners)
    return Gradients({name: by_model[name] for name in models}, taken, outputs), read


def _scale_keys(learner: Any, models: Sequence[str]) -> dict[str, Any]:
    return {name: optimizers.scale_key(learner.optimizers[name]) for name in models}


def _weights(learner: Any, row: routing.Row, group: list[str]) -> dict[str, Any]:
    """The weight of each loss in a row, times what the optimizers of the group scale losses by."""
    scale = optimizers.scale(learner.optimizers[group[0]])
    return {name: _product(learner, factors, scale) for name, factors in row.items()}


def _product(learner: Any, factors: tuple[Any, ...], scale: Any) -> Any:
    product = 1.0 if scale is None else scale
    for factor in factors:
        product = product * _value(learner, factor)
    return product


def _value(learner: Any, factor: Any) -> Any:
    if isinstance(factor, keras.optimizers.schedules.LearningRateSchedule):
        return factor(learner._batches_seen())
    return ops.convert_to_tensor(factor) if isinstance(factor, keras.Variable) else factor


def _variables(learner: Any, group: list[str]) -> list[Any]:
    models = learner._models()
    return [v for name in group for v in models[name].trainable_weights]


def _by_model(learner: Any, groups: Any, found: list[list[Any]]) -> dict[str, list[Any]]:
    result: dict[str, list[Any]] = {}
    models = learner._models()
    for (_, group), row in zip(groups, found, strict=True):
        taken = iter(row)
        for name in group:
            weights = models[name].trainable_weights
            mine = [next(taken) for _ in weights]
            _warn_if_unreached(learner, name, mine)
            result[name] = _whole(weights, mine, optimizers.scale(learner.optimizers[name]))
    return result


def _warn_if_unreached(learner: Any, name: str, found: list[Any]) -> None:
    if all(g is None for g in found) and name not in learner._run.warned:
        learner._run.warned.add(name)
        warnings.warn(
            f"None of the losses that '{name}' follows depends on it, so it will not learn. "
            "Check that `forward` calls it and that its routing names the right losses.",
            stacklevel=2,
        )


def _whole(weights: list[Any], found: list[Any], scale: Any) -> list[Any]:
    """One model's gradients, unscaled, with zeros for weights that no loss depends on."""
    found = [
        ops.zeros(w.shape, w.dtype) if g is None else g for w, g in zip(weights, found, strict=True)
    ]
    return found if scale is None else [g / ops.cast(scale, g.dtype) for g in found]


def scaled(optimizer: Any, found: list[Any]) -> list[Any]:
    """Gradients as the optimizer wants them: it divides them by its scale."""
    scale = optimizers.scale(optimizer)
    return found if scale is None else [g * ops.cast(scale, g.dtype) for g in found]

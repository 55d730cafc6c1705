"""Measure the gradient norm of each loss in each model on one batch, without side effects."""

import functools
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from keras import ops

from mlsystem import _keras
from mlsystem._learner import Learner
from mlsystem.data.batch import make_batch
from mlsystem.engine import engine, random_state
from mlsystem.metrics.running_means import Logs
from mlsystem.optimizers import optimizer_properties
from mlsystem.step import context
from mlsystem.step.forward import forward_losses

Norms = dict[str, dict[str, float | None]]


class Influence:
    """A function that measures the gradient norm of each loss in each trained model.

    It runs a forward pass of training and discards the effects (batch norm, seeds, logs).

    Args:
        learner: the learner of the model or system, whose weights are built.

    Attributes:
        losses: the value of each loss on the latest batch.
    """

    def __init__(self, learner: Learner) -> None:
        self.learner = learner
        self.losses: dict[str, float] = {}
        self.run = engine.trial(functools.partial(_norms, learner.model), learner.model)

    def __call__(self, data: Any) -> Norms:
        """Return the norms on a batch, as `{loss: {model: norm}}`.

        A norm is None if no gradient reaches a weight of the model.
        """
        with without_effects(self.learner):
            found = self.run(data)
        names, models = self.learner.known.names, list(self.learner.models())
        self.losses = {name: float(ops.convert_to_numpy(found["losses"][name])) for name in names}
        norms = found["norms"]
        return {loss: {m: _number(norms[loss][m]) for m in models} for loss in names}


class FollowedNorms:
    """A function that measures the norm of the gradient that each model follows.

    The gradient is that of a training step on the whole batch, after `routing` and the balance of
    losses. What it computes is discarded, as by `Influence`.

    Args:
        learner: the learner of the model or system, whose weights are built.
    """

    def __init__(self, learner: Learner) -> None:
        self.learner = learner
        self.run = engine.trial(functools.partial(_followed_norms, learner.model), learner.model)

    def __call__(self, data: Any) -> dict[str, float]:
        """Return the norm for each trained model."""
        with without_effects(self.learner):
            found = self.run(data)
        return {name: _number(value) or 0.0 for name, value in found.items()}


@context.make(training=True)
def _followed_norms(model: Any, data: Any) -> Any:
    return {name: norm(gradients) for name, gradients in model.gradients(data).items()}


def _number(norm: Any) -> float | None:
    return None if norm is None else float(ops.convert_to_numpy(norm))


@context.make(training=True)
def _norms(model: Any, data: Any) -> Any:
    learner = model._mlsystem
    models = learner.models()
    scale = _scale(learner)
    variables = [weight for model in models.values() for weight in model.trainable_weights]

    def run() -> Any:
        taken, _ = forward_losses(learner, make_batch(data), training=True, phase=0)
        return taken.losses, ()

    def plan(losses: dict[str, Any]) -> Any:
        return [({name: scale}, variables) for name in losses]

    losses, _, found = engine.gradients(run, plan, learner.state_variables)
    norms = {n: _by_model(models, row, scale) for n, row in zip(losses, found, strict=True)}
    values = {n: ops.cast(ops.stop_gradient(v), "float32") for n, v in losses.items()}
    return {"losses": values, "norms": norms}


def _scale(learner: Learner) -> Any:
    """Return the scale of float16 losses, which keeps their gradients from rounding to zero."""
    scales = [optimizer_properties.scale(optimizer) for optimizer in learner.optimizers.values()]
    return next((scale for scale in scales if scale is not None), 1.0)


def _by_model(models: dict[str, Any], row: list[Any], scale: Any) -> dict[str, Any]:
    left = iter(row)
    return {
        name: norm([next(left) for _ in model.trainable_weights], scale)
        for name, model in models.items()
    }


def norm(found: list[Any], scale: Any = 1.0) -> Any:
    """Return the norm of some tensors as one vector, or None without tensors."""
    squares = [ops.sum(ops.square(ops.cast(g, "float32") / scale)) for g in found if g is not None]
    return ops.sqrt(sum(squares[1:], squares[0])) if squares else None


class _Unheard(Logs):
    """Logs that store nothing."""

    def update(self, name: str, owner: str, value: Any, weight: Any) -> None:
        pass


@contextmanager
def without_effects(learner: Learner) -> Iterator[None]:
    """Restore the random generators and the logs, which are not variables of the learner."""
    random, seed = random_state.state(), _keras.known_global_seed()
    logs, learner.logs = learner.logs, _Unheard()
    try:
        yield
    finally:
        learner.logs = logs
        random_state.restore(random)
        if seed is None:
            _keras.forget_global_seed()

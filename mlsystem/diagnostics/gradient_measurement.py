"""Measure the gradient norm of each loss in each model on one batch, without side effects."""

import functools
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from typing import Any

from keras import ops

from mlsystem import _keras
from mlsystem._learner import Learner
from mlsystem.data.batch import make_batch
from mlsystem.engine import engine, random_state
from mlsystem.optimizers import optimizer_properties
from mlsystem.step import context
from mlsystem.step.forward import forward_losses, keeping_known
from mlsystem.step.running_means import Logs

Norms = dict[str, dict[str, float | None]]


class _Trial:
    """A compiled function of a batch, compiled again when other weights are trained."""

    def __init__(self, fn: Callable[[Any, Any], Any], learner: Learner) -> None:
        self.fn, self.learner = fn, learner
        self.run: Callable[[Any], Any] | None = None
        self.trained: Any = None

    def __call__(self, data: Any) -> Any:
        models = self.learner.models().items()
        trained = [(name, [id(w) for w in model.trainable_weights]) for name, model in models]
        if self.run is None or trained != self.trained:
            model, self.trained = self.learner.model, trained
            self.run = engine.trial(functools.partial(self.fn, model), model)
        with without_effects(self.learner):
            return self.run(data)


class Influence:
    """A function that measures the gradient norm of each loss in each trained model.

    It runs a forward pass of training and discards the effects (batch norm, seeds, logs). If
    `forward` takes `phase`, each model is measured in the first phase that updates it.

    Args:
        learner: the learner of the model or system, whose weights are built.

    Attributes:
        losses: the value of each loss on the latest batch. If several phases are measured, a loss
            with the name of a model is that of the model's phase. Others are of the first phase.
    """

    def __init__(self, learner: Learner) -> None:
        self.learner = learner
        self.losses: dict[str, float] = {}
        self.run = _Trial(_norms, learner)

    def __call__(self, data: Any) -> Norms:
        """Return the norms on a batch, as `{loss: {model: norm}}`.

        A norm is None if no gradient reaches a weight of the model.
        """
        found = self.run(data)
        losses, norms = found["losses"], found["norms"]
        # JAX sorts the keys of a dict.
        names = list(dict.fromkeys(n for n in (*self.learner.known.names, *losses) if n in losses))
        self.losses = {name: float(ops.convert_to_numpy(losses[name])) for name in names}
        models = list(self.learner.models())
        return {loss: {m: _number(norms[m].get(loss)) for m in models} for loss in names}


class FollowedNorms:
    """A function that measures the norm of the gradient that each model follows.

    The gradient is that of a training step on the whole batch, after `routing` and the balance of
    losses. What it computes is discarded, as by `Influence`.

    Args:
        learner: the learner of the model or system, whose weights are built.
    """

    def __init__(self, learner: Learner) -> None:
        self.run = _Trial(_followed_norms, learner)

    def __call__(self, data: Any) -> dict[str, float]:
        """Return the norm for each trained model."""
        return {name: _number(value) or 0.0 for name, value in self.run(data).items()}


def _models_by_phase(learner: Learner) -> dict[int, list[str]]:
    """Return the trained models by the phase to measure them in: the first that updates them.

    All are in phase 0 if `forward` is the same in each phase.
    """
    models = list(learner.models())
    if "phase" not in learner.model.call_signature_parameters:
        return {0: models}
    found: dict[int, list[str]] = {}
    for model in models:
        phases = (index for index, group in enumerate(learner.phases()) if model in group)
        found.setdefault(next(phases, 0), []).append(model)
    return dict(sorted(found.items()))


@context.make(training=True)
def _followed_norms(model: Any, data: Any) -> Any:
    found: dict[str, Any] = {}
    for phase, names in _models_by_phase(model._mlsystem).items():
        found |= model.gradients(data, names, phase=phase)
    return {name: norm(gradients) for name, gradients in found.items()}


def _number(norm: Any) -> float | None:
    return None if norm is None else float(ops.convert_to_numpy(norm))


@context.make(training=True)
def _norms(model: Any, data: Any) -> Any:
    """Return the losses, and the norms by model and loss."""
    learner = model._mlsystem
    values: dict[str, Any] = {}
    norms: dict[str, dict[str, Any]] = {}
    for phase, names in _models_by_phase(learner).items():
        models = {name: learner.models()[name] for name in names}
        losses, found = _norms_in_phase(learner, models, data, phase)
        values |= {n: value for n, value in losses.items() if n not in values or n in models}
        norms |= {m: {loss: row[m] for loss, row in found.items()} for m in models}
    return {"losses": values, "norms": norms}


def _norms_in_phase(learner: Learner, models: dict[str, Any], data: Any, phase: int) -> Any:
    scale = _scale(learner)
    variables = [weight for model in models.values() for weight in model.trainable_weights]

    def run() -> Any:
        taken, _ = forward_losses(learner, make_batch(data), training=True, phase=phase)
        return taken.losses, ()

    def plan(losses: dict[str, Any]) -> Any:
        return [({name: scale}, variables) for name in losses]

    losses, _, found = engine.gradients(run, plan, learner.state_variables)
    norms = {n: _by_model(models, row, scale) for n, row in zip(losses, found, strict=True)}
    values = {n: ops.cast(ops.stop_gradient(v), "float32") for n, v in losses.items()}
    return values, norms


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

    def update(self, values: Mapping[str, tuple[str, Any, Any]]) -> None:
        pass


@contextmanager
def without_effects(learner: Learner) -> Iterator[None]:
    """Restore what is no variable of the learner: random generators, logs and known losses."""
    random, seed = random_state.state(), _keras.known_global_seed()
    logs, learner.logs = learner.logs, _Unheard()
    try:
        with keeping_known(learner):
            yield
    finally:
        learner.logs = logs
        random_state.restore(random)
        if seed is None:
            _keras.forget_global_seed()

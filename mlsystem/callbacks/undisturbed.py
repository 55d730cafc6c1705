"""`undisturbed`: keep what training depends on unchanged by a look at the model."""

import contextlib
from collections.abc import Iterator
from typing import Any

import numpy as np
from keras import ops

from mlsystem import _keras
from mlsystem.data.transforms import Transform
from mlsystem.engine import engine, random_state
from mlsystem.saving import data_position


@contextlib.contextmanager
def undisturbed(model: Any, data: Any) -> Iterator[None]:
    """Keep the state of training unchanged by an evaluation in this context.

    Args:
        model: the model that is trained.
        data: the training data. If other threads or processes run its Python code meanwhile, the
            global random generators are not reset, because the data may draw from them.
    """
    before, seeds = _arrays(model.metrics_variables), _arrays(_seeds(model))
    drawn = [(transform, transform.get_state()) for transform in _transforms(model, data)]
    learner, random, seed = model._mlsystem, random_state.state(), random_state.seed()
    compiled, filled = learner.compiled, set(learner.logs.filled)
    shown, batches = compiled.shown, compiled.batches
    try:
        with engine.aside(model):
            yield
    finally:
        _empty_new(model, before)
        for variable, value in [*before.values(), *seeds.values()]:
            variable.assign(value)
        for transform, state in drawn:
            transform.set_state(state)
        compiled.shown, compiled.batches, learner.logs.filled = shown, batches, filled
        ahead = data_position.reads_ahead(data) or getattr(data, "workers", 1) > 1
        data_position.restore(random, ahead)
        random_state.set_seed(seed)


@contextlib.contextmanager
def sampling(model: Any, data: Any) -> Iterator[None]:
    """Keep training unchanged by a function of the user that calls models, in either mode.

    Args:
        model: the model that is trained.
        data: the training data, as in `undisturbed`.
    """
    state, seed = model._mlsystem.assigned, _keras.known_global_seed()
    before = [engine.kept(variable.value) for variable in state]
    with undisturbed(model, data), engine.step_scope(()):
        try:
            yield
        finally:
            for variable, value in zip(state, before, strict=True):
                if engine.changed(variable.value, value):
                    variable.assign(value)
            if seed is None:  # the first draw without a seed makes its generator
                _keras.forget_global_seed()


def _seeds(model: Any) -> list[Any]:
    """Return the states of the seed generators of the model and its layers."""
    return [v for v in model.variables if v.name == "seed_generator_state"]


def _transforms(model: Any, data: Any) -> list[Any]:
    """Return the transforms applied to batches before the step or inside it."""
    found = [getattr(data, "transform", None), model._mlsystem.call.transform]
    return [transform for transform in found if isinstance(transform, Transform)]


def _arrays(variables: list[Any]) -> dict[int, tuple[Any, Any]]:
    return {id(v): (v, np.array(ops.convert_to_numpy(v))) for v in variables}


def _empty_new(model: Any, known: dict[int, Any]) -> None:
    """Reset the metrics whose variables this evaluation made."""
    for metric in model.metrics:
        if any(id(variable) not in known for variable in metric.variables):
            metric.reset_state()

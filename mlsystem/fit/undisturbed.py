"""An evaluation in the middle of an epoch, of which the training notices nothing.

An evaluation empties and fills the running means of the epoch, draws random numbers, as does the
transform of its data, and switches torch modules to inference. All of that is put back exactly as
it was.
"""

import contextlib
from collections.abc import Iterator
from typing import Any

import numpy as np
from keras import ops

from mlsystem import engine
from mlsystem.data.transforms import Transform
from mlsystem.engine import random_state
from mlsystem.saving import data_position


@contextlib.contextmanager
def undisturbed(model: Any, data: Any) -> Iterator[None]:
    """The context of that evaluation.

    Args:
        model: what is trained.
        data: what it is trained on. Where that is Python code which others run meanwhile, the
            generators that it may draw from stay where it left them.
    """
    before, seeds = _arrays(model.metrics_variables), _arrays(_seeds(model))
    drawn = [(transform, transform.get_state()) for transform in _transforms(model, data)]
    run, random, seed = model._run, random_state.state(), random_state.seed()
    shown, batches, filled = run.shown, run.batches, set(run.logs.filled)
    try:
        with engine.chosen.aside(model):
            yield
    finally:
        _empty_new(model, before)
        for variable, value in [*before.values(), *seeds.values()]:
            variable.assign(value)
        for transform, state in drawn:
            transform.set_state(state)
        run.shown, run.batches, run.logs.filled = shown, batches, filled
        ahead = data_position.reads_ahead(data) or getattr(data, "workers", 1) > 1
        data_position.restore(random, ahead)
        random_state.set_seed(seed)


def _seeds(model: Any) -> list[Any]:
    """What the seed generators of the model and its layers draw from."""
    return [v for v in model.variables if v.name == "seed_generator_state"]


def _transforms(model: Any, data: Any) -> list[Any]:
    """What the batches go through before the step, or inside."""
    found = [getattr(data, "transform", None), model._run.transform]
    return [transform for transform in found if isinstance(transform, Transform)]


def _arrays(variables: list[Any]) -> dict[int, tuple[Any, Any]]:
    return {id(v): (v, np.array(ops.convert_to_numpy(v))) for v in variables}


def _empty_new(model: Any, known: dict[int, Any]) -> None:
    """Empties the metrics that the evaluation was the first to need."""
    for metric in model.metrics:
        if any(id(variable) not in known for variable in metric.variables):
            metric.reset_state()

"""Check the arguments of `ml.tune`, and turn data into arguments of `fit`."""

import math
import numbers
from collections.abc import Iterable
from typing import Any

import keras

from mlsystem import _keras, _learner
from mlsystem._checks import is_count
from mlsystem._learner import Learner
from mlsystem.data.adapter import BatchAdapter
from mlsystem.data.mldata import MLData
from mlsystem.data.source import Source
from mlsystem.engine import engine
from mlsystem.fit import data_arguments
from mlsystem.routing import model_names

_ENDLESS = 10**9  # epochs: a measurement ends by itself


def learner_of(system: Any, what: str) -> Learner:
    """Return the learner of a model or system. Raise an error for anything else."""
    learner = _learner.of(system) if isinstance(system, keras.Model) else None
    if learner is None:
        raise TypeError(f"{what} got {system!r}. Give an MLModel or an MLSystem.")
    if learner.call is not None:
        raise RuntimeError(f"'{learner.name}' is in a `fit`. Call {what} before or after it.")
    if engine.replicas.count > 1:
        raise ValueError(
            f"{what} measures in one process, and {engine.replicas.count} train together after "
            "ml.distribute. Call it in a script without ml.distribute."
        )
    return learner


def of_fit(learner: Learner, data: Any, batch_size: Any, what: str) -> tuple[dict[str, Any], Any]:
    """Return the arguments of `fit`, and the data set that it will read.

    Args:
        learner: the learner of the model or system.
        data: as `fit` takes it, or a tuple `(x, y)`. None for the data of the system.
        batch_size: the batch size of arrays.
        what: the function of the user, for messages.
    """
    data = data_arguments.own_data(learner) if data is None else data
    if data is None:
        raise ValueError(
            f"{what} needs data. Give it, or define `data(self)` of "
            f"{type(learner.model).__name__}, which returns an ml.MLData."
        )
    if isinstance(data, tuple):
        data = MLData(train=data)
    part = data.part("train") if isinstance(data, MLData) else data
    _check_again(part, what)
    given = {"x": data, "batch_size": batch_size, "epochs": _ENDLESS, "verbose": 0}
    return given | {"validation_freq": _ENDLESS}, part


def _check_again(data: Any, what: str) -> None:
    """Raise an error for data that can be read only once."""
    sources = getattr(data, "sources", {}).values() if isinstance(data, BatchAdapter) else ()
    once = [s.data for s in sources if isinstance(s, Source) and s.once is not None]
    if once or _keras.kind_of_data(data) == "generator":
        raise ValueError(
            f"{what} got a generator, which cannot be read again: its place would be lost. Give "
            "the function that makes it, in an ml.MLData, or another data set."
        )


def chosen(learner: Learner, models: Any, what: str) -> list[str]:
    """Return the names of the models to measure: the named ones, or all that are trained."""
    trained = list(learner.models())
    if not trained:
        raise ValueError(f"{what}: '{learner.name}' has no trainable weights. Unfreeze a model.")
    if models is None:
        return trained
    names = model_names.resolve(models, learner.known_models(), f"{what}(models=)")
    if not names:
        raise ValueError(f"{what} got models={models!r}, which names no model.")
    if frozen := [name for name in names if name not in trained]:
        raise ValueError(
            f"{what}(models=) names '{frozen[0]}', which is frozen. Set its `trainable = True`, or "
            "leave it out."
        )
    return names


def check_rates(learner: Learner, names: Iterable[str]) -> None:
    """Raise an error if the learning rate of a model cannot be set for each step."""
    if (steps := learner.model.steps_per_execution) > 1:
        raise ValueError(
            f"'{learner.name}' is compiled with steps_per_execution={steps}, and a sweep needs "
            "another learning rate in each step. Compile with steps_per_execution=1 for the sweep."
        )
    for name in names:
        optimizer = learner.optimizers[name]
        kind = type(getattr(optimizer, "inner_optimizer", optimizer)).__name__
        if not hasattr(optimizer, "learning_rate"):
            raise ValueError(
                f"The {kind} of '{name}' has several learning rates. Leave '{name}' out of "
                "`models`, or give it one optimizer."
            )
        if (schedule := _keras.schedule(optimizer)) is not None:
            raise ValueError(
                f"The learning rate of '{name}' follows a schedule, {type(schedule).__name__}. "
                "Give its optimizer a number for the sweep. Then use the rate that is found as the "
                "highest rate of the schedule."
            )
        if not isinstance(optimizer.learning_rate, keras.Variable):
            raise ValueError(
                f"The learning rate of '{name}' is computed by a function, and cannot be set. Give "
                "its optimizer a number."
            )


def check_between(between: Any, steps: Any, others: Any, what: str) -> tuple[float, float]:
    """Return the lowest and the highest rate. Raise an error for values that make no sweep."""
    is_pair = isinstance(between, (tuple, list)) and len(between) == 2
    if not is_pair or not all(_is_rate(rate) for rate in between) or between[0] >= between[1]:
        raise ValueError(
            f"{what} got between={between!r}. Give the lowest and the highest rate, such as "
            "(1e-7, 1.0): two numbers above 0, the smaller one first."
        )
    if not is_count(steps) or steps < 10:
        raise ValueError(f"{what} got steps={steps!r}. Give a number of steps from 10.")
    if others not in ("keep", "freeze"):
        raise ValueError(
            f"{what} got others={others!r}. Give 'keep' (the other models train at their rates) or "
            "'freeze'."
        )
    return float(between[0]), float(between[1])


def _is_rate(rate: Any) -> bool:
    is_real = isinstance(rate, numbers.Real) and not isinstance(rate, bool)
    return is_real and 0 < float(rate) < math.inf

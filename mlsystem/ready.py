"""Readying a learner from one batch: weights, optimizers, checks and a rehearsal, before training.

The rehearsal runs one step whose effects are thrown away. It finds errors before anything is
changed, and the names that will be logged, whose trackers a compiled step cannot make.
"""

import contextlib
from collections.abc import Iterable, Iterator
from typing import Any

import keras
from keras import tree

from mlsystem import _keras, data, engine


@contextlib.contextmanager
def purpose(learner: Any, step: str) -> Iterator[None]:
    """Says which step the next call of Keras' trainer will run; compiles where nobody has."""
    engine.chosen.step_scope()  # a backend that cannot train says so here
    learner._ensure_compiled()
    before, learner._run.purpose = learner._run.purpose, step
    try:
        yield
    finally:
        learner._run.purpose = before


def ready(learner: Any, batches: Iterable[Any]) -> None:
    """Readies a learner for the step at hand, unless it is."""
    if learner._run.purpose in learner._run.rehearsed:
        return
    batch = _first(learner, batches)
    build(learner, batch)
    rehearse(learner, learner._run.purpose, batch)
    learner._run.rehearsed.add(learner._run.purpose)


def _first(learner: Any, batches: Iterable[Any]) -> Any:
    batch = next(iter(batches), None)
    leaves = [] if batch is None else [a for a in tree.flatten(batch) if hasattr(a, "shape")]
    if not leaves or any(len(a.shape) and a.shape[0] == 0 for a in leaves):
        raise ValueError(
            f"The data set given to '{learner.name}' is empty: it yields no batch, or one of no "
            "samples. Check its length, its batch size and `drop_last`."
        )
    return tree.map_structure(lambda a: a if hasattr(a, "shape") else None, batch)


def build(learner: Any, batch: Any) -> None:
    """Builds the weights from the shapes of a batch, then the optimizers."""
    if learner._run.is_ready:
        return
    parts = keras.utils.unpack_x_y_sample_weight(batch)
    if not all(layer.built for layer in [learner, *learner.layers]):
        _build_weights(learner, data.Batch(*(tree.map_structure(_symbol, p) for p in parts)))
    learner._register_weights()
    learner._finish_build()
    learner._run.is_ready = True


def _symbol(leaf: Any) -> Any:
    if leaf is None:
        return None
    return keras.KerasTensor(leaf.shape, keras.backend.standardize_dtype(leaf.dtype))


def _build_weights(learner: Any, batch: data.Batch) -> None:
    try:
        _keras.compute_output_spec(
            lambda x, y: learner._call_forward(data.Batch(x, y, None), training=False),
            batch.x,
            batch.y,
        )
    except Exception as error:
        raise ValueError(
            f"{type(learner).__name__}.forward cannot take this data: "
            f"x is {data.describe(batch.x)}, y is {data.describe(batch.y)}. "
            "A data set that yields (a, b) is read as (x, y); two inputs are ((a, b),). "
            f"{type(error).__name__}: {error}"
        ) from error


def rehearse(learner: Any, step: str, batch: Any) -> None:
    """Runs one step whose effects on the state are thrown away."""
    logs = learner._run.logs
    logs.sealed = False
    engine.chosen.rehearse(getattr(learner, step), batch, learner._state_variables())
    logs.sealed = True
    learner.reset_metrics()

"""Readying a learner from one batch: weights, optimizers, checks and a rehearsal, before training.

The rehearsal runs one step whose effects are thrown away. It finds errors before anything is
changed, and the names that will be logged, whose trackers a compiled step cannot make.
"""

import contextlib
import warnings
from collections.abc import Iterable
from typing import Any

import keras
import numpy as np
from keras import tree

from mlsystem import _keras
from mlsystem._input_checks import check_data
from mlsystem._learner import Learner
from mlsystem._tensors import describe
from mlsystem.data.batch import Batch, make_batch
from mlsystem.engine import engine, random_state
from mlsystem.preparation import fingerprint, lightning_hints
from mlsystem.step.forward import call_forward, forward_losses


def check_given(learner: Learner, x: Any = None, y: Any = None, sample_weight: Any = None) -> None:
    """Checks what Keras would fail on without a clear word, or drop without any."""
    for name, part in (("x", x), ("y", y), ("sample_weight", sample_weight)):
        check_data(part, f"`{name}` given to '{learner.name}'")
    if isinstance(x, (dict, list, tuple)) or hasattr(x, "shape"):
        _check_empty(learner, x)
    if y is None and sample_weight is not None:
        raise ValueError(
            f"'{learner.name}' got sample weights without y, which Keras would drop. Give y too, "
            "or a data set that yields (x, y, sample_weight)."
        )


def _check_empty(learner: Learner, batch: Any) -> None:
    leaves = [leaf for leaf in tree.flatten(batch) if hasattr(leaf, "shape")]
    if not leaves or any(len(leaf.shape) and leaf.shape[0] == 0 for leaf in leaves):
        raise ValueError(
            f"The data set given to '{learner.name}' is empty: it yields no batch, or one of no "
            "samples. Check its length, its batch size and whether it drops the last batch."
        )


def ready(learner: Learner, batches: Iterable[Any]) -> None:
    """Readies a learner for the step at hand, unless it is."""
    if learner.call.step not in learner.compiled.rehearsed:
        rehearse_all(learner, _first(learner, batches))


def rehearse_all(learner: Learner, batches: list[Any], where: str = "") -> None:
    """Rehearses the step at hand on batches of other shapes than it was rehearsed on before.

    Args:
        learner: a model or system, which is built first if need be.
        batches: one batch of each structure.
        where: which data they are of, for messages.
    """
    build(learner, *[_transformed(learner, batch) for batch in batches])
    step = learner.call.step
    known = learner.compiled.rehearsed.get(step, set())
    before = fingerprint.of(learner)
    for batch in batches:
        if (shapes := describe(batch)) not in known:
            rehearse(learner, step, batch, where)
            known.add(shapes)
    fingerprint.note(learner, before)
    learner.compiled.rehearsed[step] = known


def _first(learner: Learner, batches: Iterable[Any]) -> list[Any]:
    """The first batch of each structure."""
    state = random_state.state()
    found = list(batches)
    if not _keras.draws_first(learner.model):
        random_state.restore(state)
    return checked(learner, found)


def checked(learner: Learner, batches: list[Any]) -> list[Any]:
    """Batches in which what is no array is None. Refuses an empty one, and none at all."""
    for batch in batches or [()]:
        _check_empty(learner, batch)
    return [tree.map_structure(lambda a: a if hasattr(a, "shape") else None, b) for b in batches]


def _transformed(learner: Learner, batch: Any) -> Any:
    """A batch as the models will see it."""
    call = learner.call
    if call is None or call.transform is None:
        return batch
    return call.transform.observe(batch, training=call.step == "train_step")


def build(learner: Learner, *batches: Any) -> None:
    """Builds the weights from the shapes of a batch of each structure, then the optimizers."""
    if learner.setup is not None:
        return
    model = learner.model
    lightning_hints.check(learner)
    learner.symbols = tree.map_structure(_symbol, batches[0])
    with warnings.catch_warnings():
        if len(batches) > 1:  # the first of them may leave layers to the others
            warnings.filterwarnings("ignore", "`build\\(\\)` was called", UserWarning)
        for batch in batches:
            if not all(layer.built for layer in [model, *model.layers]):
                _build_weights(learner, batch)
    _keras.register_weights(model)
    try:
        learner.finish_build()
    except Exception:
        learner.setup = None
        raise


def _symbol(leaf: Any) -> Any:
    if leaf is None:
        return None
    try:
        return keras.KerasTensor(leaf.shape, keras.backend.standardize_dtype(leaf.dtype))
    except ValueError as error:
        raise ValueError(
            f"The data hold an array of dtype {leaf.dtype}: text or Python objects. Give arrays of "
            "numbers: keras.layers.TextVectorization turns text into them."
        ) from error


def rebuild(learner: Learner, symbols: Any) -> None:
    """Builds the weights of a loaded learner, from the shapes that the saved one was built with."""
    learner.symbols, model = symbols, learner.model
    if not all(layer.built for layer in [model, *model.layers]):
        _build_weights(learner, tree.map_structure(_zeros, symbols))
    _keras.register_weights(model)


def _zeros(symbol: Any) -> Any:
    return None if symbol is None else np.zeros(symbol.shape, symbol.dtype)


def _build_weights(learner: Learner, batch: Any) -> None:
    try:
        parts = keras.utils.unpack_x_y_sample_weight(tree.map_structure(_symbol, batch))
        _keras.compute_output_spec(
            lambda x, y: call_forward(learner, Batch(x, y, None), training=False),
            *parts[:2],
        )
    except Exception:
        # What cannot run on shapes alone may run on numbers, and says more clearly what is wrong.
        _build_eagerly(learner, make_batch(batch))


def _build_eagerly(learner: Learner, batch: Batch) -> None:
    try:
        call_forward(learner, batch, training=False)
    except NotImplementedError:  # there is no `forward`
        raise
    except Exception as error:
        raise ValueError(
            f"{type(learner.model).__name__}.forward fails on this data: x is {describe(batch.x)}, "
            f"y is {describe(batch.y)}. (A data set that yields (a, b) is read as (x, y); two "
            f"inputs are ((a, b),).) {type(error).__name__}: {error}"
        ) from error


def loss_names(learner: Learner) -> list[str]:
    """The names of the losses, found from the shapes of a batch; none where that does not work."""
    found: dict[str, None] = {}

    def run(x: Any, y: Any, sample_weight: Any) -> Any:
        batch = Batch(x, y, sample_weight)
        taken, outputs = forward_losses(learner, batch, training=False)
        found.update(dict.fromkeys(taken.losses))
        return outputs

    with contextlib.suppress(Exception):
        parts = keras.utils.unpack_x_y_sample_weight(learner.symbols)
        _keras.compute_output_spec(run, *parts)
    return list(found)


def rehearse(learner: Learner, step: str, batch: Any, where: str = "") -> None:
    """Runs one step whose effects on the state are thrown away."""
    logs, before = learner.logs, random_state.state()
    was_sealed, logs.sealed = logs.sealed, False
    state = learner.state_variables()
    transform = learner.call.transform
    kept = contextlib.nullcontext() if transform is None else transform.kept()
    try:
        with kept:
            engine.rehearse(getattr(learner.model, step), batch, state)
    except Exception as error:
        logs.sealed = was_sealed
        if "_error_repr" in str(error):  # Keras fails to say again what JAX has said
            raise TypeError(
                f"'{learner.name}' computes with NumPy, or `float`, where a tensor has no numbers "
                "yet: in a compiled step. Use keras.ops, or compile(run_eagerly=True)."
            ) from error
        x, y, _ = keras.utils.unpack_x_y_sample_weight(batch)
        error.add_note(
            f"This came up in the {step} of '{learner.name}' on its first batch{where}, of which x "
            f"is {describe(x)} and y is {describe(y)}.{lightning_hints.advice(error)}"
        )
        raise
    finally:
        random_state.restore(before)
    logs.check(learner.metric_names())
    logs.sealed = True
    _empty_new_metrics(learner, {id(variable) for variable in state})


def _empty_new_metrics(learner: Learner, known: set[int]) -> None:
    """Empties the metrics that were made in the rehearsal, whose state could not be put back."""
    for metric in learner.model.metrics:
        if any(id(variable) not in known for variable in metric.variables):
            metric.reset_state()

"""Readying a learner from one batch: weights, optimizers, checks and a rehearsal, before training.

The rehearsal runs one step whose effects are thrown away. It finds errors before anything is
changed, and the names that will be logged, whose trackers a compiled step cannot make.
"""

import contextlib
import warnings
from collections.abc import Iterable, Iterator
from typing import Any

import keras
import numpy as np
from keras import tree

from mlsystem import _keras, engine
from mlsystem._input_checks import check_data
from mlsystem._tensors import describe
from mlsystem.data.batch import Batch, make_batch
from mlsystem.engine import random_state
from mlsystem.preparation import fingerprint, lightning_hints


@contextlib.contextmanager
def purpose(learner: Any, step: str, *given: Any) -> Iterator[None]:
    """Says which step the next call of Keras' trainer will run; compiles where nobody has."""
    engine.chosen.random_state()  # a backend that cannot train says so here
    _check_given(learner, *given)
    before, learner._run.purpose = learner._run.purpose, step
    try:
        learner._ensure_compiled()
        yield
    finally:
        learner._run.purpose = before


def _check_given(learner: Any, x: Any = None, y: Any = None, sample_weight: Any = None) -> None:
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


def _check_empty(learner: Any, batch: Any) -> None:
    leaves = [leaf for leaf in tree.flatten(batch) if hasattr(leaf, "shape")]
    if not leaves or any(len(leaf.shape) and leaf.shape[0] == 0 for leaf in leaves):
        raise ValueError(
            f"The data set given to '{learner.name}' is empty: it yields no batch, or one of no "
            "samples. Check its length, its batch size and whether it drops the last batch."
        )


def ready(learner: Any, batches: Iterable[Any]) -> None:
    """Readies a learner for the step at hand, unless it is."""
    if learner._run.purpose not in learner._run.rehearsed:
        rehearse_all(learner, _first(learner, batches))


def rehearse_all(learner: Any, batches: list[Any], where: str = "") -> None:
    """Rehearses the step at hand on batches of other shapes than it was rehearsed on before.

    Args:
        learner: a model or system, which is built first if need be.
        batches: one batch of each structure.
        where: which data they are of, for messages.
    """
    build(learner, *[_transformed(learner, batch) for batch in batches])
    step = learner._run.purpose
    known = learner._run.rehearsed.get(step, set())
    before = fingerprint.of(learner)
    for batch in batches:
        if (shapes := describe(batch)) not in known:
            rehearse(learner, step, batch, where)
            known.add(shapes)
    fingerprint.note(learner, before)
    learner._run.rehearsed[step] = known


def _first(learner: Any, batches: Iterable[Any]) -> list[Any]:
    """The first batch of each structure."""
    state = random_state.state()
    found = list(batches)
    if not learner._keras_draws():
        random_state.restore(state)
    return checked(learner, found)


def checked(learner: Any, batches: list[Any]) -> list[Any]:
    """Batches in which what is no array is None. Refuses an empty one, and none at all."""
    for batch in batches or [()]:
        _check_empty(learner, batch)
    return [tree.map_structure(lambda a: a if hasattr(a, "shape") else None, b) for b in batches]


def _transformed(learner: Any, batch: Any) -> Any:
    """A batch as the models will see it."""
    transform = learner._run.transform
    if transform is None:
        return batch
    return transform.observe(batch, training=learner._run.purpose == "train_step")


def build(learner: Any, *batches: Any) -> None:
    """Builds the weights from the shapes of a batch of each structure, then the optimizers."""
    if learner._run.is_ready:
        return
    lightning_hints.check(learner)
    learner._run.symbols = tree.map_structure(_symbol, batches[0])
    with warnings.catch_warnings():
        if len(batches) > 1:  # the first of them may leave layers to the others
            warnings.filterwarnings("ignore", "`build\\(\\)` was called", UserWarning)
        for batch in batches:
            if not all(layer.built for layer in [learner, *learner.layers]):
                _build_weights(learner, batch)
    learner._register_weights()
    learner._finish_build()
    learner._run.is_ready = True


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


def rebuild(learner: Any, symbols: Any) -> None:
    """Builds the weights of a loaded learner, from the shapes that the saved one was built with."""
    learner._run.symbols = symbols
    if not all(layer.built for layer in [learner, *learner.layers]):
        _build_weights(learner, tree.map_structure(_zeros, symbols))
    learner._register_weights()


def _zeros(symbol: Any) -> Any:
    return None if symbol is None else np.zeros(symbol.shape, symbol.dtype)


def _build_weights(learner: Any, batch: Any) -> None:
    try:
        parts = keras.utils.unpack_x_y_sample_weight(tree.map_structure(_symbol, batch))
        _keras.compute_output_spec(
            lambda x, y: learner._call_forward(Batch(x, y, None), training=False),
            *parts[:2],
        )
    except Exception:
        # What cannot run on shapes alone may run on numbers, and says more clearly what is wrong.
        _build_eagerly(learner, make_batch(batch))


def _build_eagerly(learner: Any, batch: Batch) -> None:
    try:
        learner._call_forward(batch, training=False)
    except NotImplementedError:  # there is no `forward`
        raise
    except Exception as error:
        raise ValueError(
            f"{type(learner).__name__}.forward fails on this data: x is {describe(batch.x)}, "
            f"y is {describe(batch.y)}. (A data set that yields (a, b) is read as (x, y); two "
            f"inputs are ((a, b),).) {type(error).__name__}: {error}"
        ) from error


def loss_names(learner: Any) -> list[str]:
    """The names of the losses, found from the shapes of a batch; none where that does not work."""
    found: dict[str, None] = {}

    def run(x: Any, y: Any, sample_weight: Any) -> Any:
        batch = Batch(x, y, sample_weight)
        taken, outputs = learner._forward_losses(batch, training=False)
        found.update(dict.fromkeys(taken.losses))
        return outputs

    with contextlib.suppress(Exception):
        parts = keras.utils.unpack_x_y_sample_weight(learner._run.symbols)
        _keras.compute_output_spec(run, *parts)
    return list(found)


def rehearse(learner: Any, step: str, batch: Any, where: str = "") -> None:
    """Runs one step whose effects on the state are thrown away."""
    logs, before = learner._run.logs, random_state.state()
    was_sealed, logs.sealed = logs.sealed, False
    state = learner._state_variables()
    transform = learner._run.transform
    kept = contextlib.nullcontext() if transform is None else transform.kept()
    try:
        with kept:
            engine.chosen.rehearse(getattr(learner, step), batch, state)
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
    logs.check(learner._metric_names())
    logs.sealed = True
    _empty_new_metrics(learner, {id(variable) for variable in state})


def _empty_new_metrics(learner: Any, known: set[int]) -> None:
    """Empties the metrics that were made in the rehearsal, whose state could not be put back."""
    for metric in learner.metrics:
        if any(id(variable) not in known for variable in metric.variables):
            metric.reset_state()

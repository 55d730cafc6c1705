"""Set up a model from one batch: build weights and optimizers, check the data, rehearse one step.

The rehearsal runs one step and discards its effects. It finds errors before anything changes. It
also finds the names that will be logged, because a compiled step cannot create their trackers.
"""

import contextlib
import textwrap
import warnings
from collections.abc import Iterable
from typing import Any

import keras
import numpy as np
from keras import tree

from mlsystem import _keras, _learner
from mlsystem._data_checks import check_data
from mlsystem._learner import Learner
from mlsystem._long_work import announced
from mlsystem._tensors import describe
from mlsystem.data.batch import Batch, limits, make_batch
from mlsystem.engine import engine, random_state
from mlsystem.preparation import lightning_hints, recompilation
from mlsystem.step.forward import call_forward, forward_losses


def setup(system: Any, data: Any = None) -> Any:
    """Prepare a model or system for training: build its weights and optimizers, and compile it.

    Call it to look at a system before training, for example with `summary`. `fit`, `evaluate` and
    `predict` call it for you if necessary.

    ```python
    ml.setup(system, Digits()).summary()
    ```

    Args:
        system: an `MLModel` or `MLSystem`.
        data: an `MLData`, `Streams`, a data set, or one batch as a data set yields it. Only the
            shapes of a batch matter. By default the result of the system's method `data`.

    Returns:
        The system.
    """
    if not isinstance(system, keras.Model) or _learner.of(system) is None:
        raise TypeError(
            f"setup got {system!r}. Give an MLModel or an MLSystem, made by its constructor: "
            "`ml.MLModel(net, loss=...)` wraps a Keras model, and `System()` is one of your class."
        )
    return system.setup(data)


def check_given(learner: Learner, x: Any = None, y: Any = None, sample_weight: Any = None) -> None:
    """Raise an error for data that Keras would drop, or reject without a clear message."""
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
    """Rehearse the current step of a learner, unless it is rehearsed already."""
    if learner.call.step not in learner.compiled.rehearsed:
        rehearse_all(learner, _first(learner, batches))


def rehearse_all(learner: Learner, batches: list[Any], where: str = "") -> None:
    """Rehearse the current step on batches whose shapes are new.

    Args:
        learner: the learner of a model or system. It is built first if necessary.
        batches: one batch of each structure.
        where: the name of the data, for messages.
    """
    step = learner.call.step
    known = learner.compiled.rehearsed.get(step, set())
    with announced(f"Checking '{learner.name}' on a first batch", learner.call.shows):
        build(learner, *[_transformed(learner, batch) for batch in batches])
        before = recompilation.of(learner)
        for batch in batches:
            if (shapes := describe(batch)) not in known:
                rehearse(learner, step, batch, where)
                known.add(shapes)
    recompilation.note(learner, before)
    learner.compiled.rehearsed[step] = known


def _first(learner: Learner, batches: Iterable[Any]) -> list[Any]:
    """Return the first batch of each structure."""
    state = random_state.state()
    found = list(batches)
    if not _keras.draws_first(learner.model):
        random_state.restore(state)
    return checked(learner, found)


def checked(learner: Learner, batches: list[Any]) -> list[Any]:
    """Replace leaves that are not arrays by None. Raise an error if a batch is empty or missing."""
    for batch in batches or [()]:
        _check_empty(learner, batch)
    return [tree.map_structure(lambda a: a if hasattr(a, "shape") else None, b) for b in batches]


def _transformed(learner: Learner, batch: Any) -> Any:
    """Return a batch after the transform, as the models will see it."""
    call = learner.call
    if call is None or call.transform is None:
        return batch
    return call.transform.observe(batch, training=call.step == "train_step")


def build(learner: Learner, *batches: Any) -> None:
    """Build the weights from the shapes of a batch of each structure, then the optimizers."""
    if learner.is_ready:
        return
    model = learner.model
    lightning_hints.check(learner)
    learner.symbols = tree.map_structure(_symbol, batches[0])
    learner.ranges = [limits(leaf) for leaf in tree.flatten(batches[0])]
    with warnings.catch_warnings():
        if len(batches) > 1:  # the first batch may not call all layers
            warnings.filterwarnings("ignore", "`build\\(\\)` was called", UserWarning)
        for batch in batches:
            if not all(layer.built for layer in [model, *model.layers]):
                _build_weights(learner, batch)
    _keras.register_weights(model)
    with engine.initial_values():
        learner.finish_build()
    learner.is_ready = True


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
    """Build the weights of a loaded learner, from the shapes with which it was saved."""
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
        # Code that cannot run on shapes alone may run on numbers, and its errors are clearer.
        _build_eagerly(learner, make_batch(batch))


def _build_eagerly(learner: Learner, batch: Batch) -> None:
    try:
        call_forward(learner, batch, training=False)
    except NotImplementedError:  # `forward` is missing
        raise
    except Exception as error:
        raise ValueError(
            f"{type(learner.model).__name__}.forward fails on this data: x is {describe(batch.x)}, "
            f"y is {describe(batch.y)}. (A data set that yields (a, b) is read as (x, y); two "
            f"inputs are ((a, b),).) {type(error).__name__}: {_short(error)}"
        ) from error


def _short(error: Exception) -> str:
    """Return the text of an error without the end of a long one, where Keras prints the arrays."""
    text = str(error)
    return text if len(text) <= 400 else textwrap.shorten(text, 400, placeholder=" ...")


def loss_names(learner: Learner) -> list[str]:
    """Return the names of the losses, from the shapes of a batch. Empty if that is impossible."""
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
    """Run one step and discard its effects on the state."""
    logs, before = learner.logs, random_state.state()
    was_sealed, logs.sealed = logs.sealed, False
    state = learner.state_variables()
    transform = learner.call.transform
    kept = contextlib.nullcontext() if transform is None else transform.kept()
    try:
        with kept, engine.initial_values():
            engine.rehearse(getattr(learner.model, step), batch, state)
    except Exception as error:
        logs.sealed = was_sealed
        if "_error_repr" in str(error):  # Keras fails while it re-raises an error of JAX
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
    learner.forget()  # the step may have made variables
    _empty_new_metrics(learner, {id(variable) for variable in state})


def _empty_new_metrics(learner: Learner, known: set[int]) -> None:
    """Reset metrics made in the rehearsal, because their earlier state cannot be restored."""
    for metric in learner.model.metrics:
        if any(id(variable) not in known for variable in metric.variables):
            metric.reset_state()

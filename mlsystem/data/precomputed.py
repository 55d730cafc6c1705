"""Outputs of frozen models on the data: computed once, and read with each batch."""

from collections.abc import Mapping
from typing import Any

import keras
import numpy as np
from keras import tree

from mlsystem import _learner
from mlsystem._errors import named_in_errors
from mlsystem._long_work import announced
from mlsystem._tensors import describe
from mlsystem.data.batch import array, mapped
from mlsystem.data.source import is_function, read

BATCH = 32  # rows at once, without a batch size


def check(given: Any) -> None:
    """Raise an error if `precompute` is not a dict of frozen models by name."""
    if not isinstance(given, Mapping):
        raise TypeError(f"precompute is {given!r}. Give a dict of frozen models by name.")
    for name, model in given.items():
        if not isinstance(name, str) or not name:
            raise TypeError(f"precompute has the name {name!r}. Give a text, such as 'embeddings'.")
        _check_frozen(name, _model(name, model)[0])


def _model(name: str, given: Any) -> tuple[Any, str | None]:
    """Return the model, and the entry of x that it takes. None for all of x."""
    model, entry = given if isinstance(given, tuple) and len(given) == 2 else (given, None)
    if not isinstance(model, keras.Model):
        raise TypeError(
            f"precompute[{name!r}] is {given!r}. Give a Keras model, or (model, 'entry of x'). "
            "Wrap a layer in keras.Sequential([layer])."
        )
    return model, entry


def _check_frozen(name: str, model: Any) -> None:
    if _learner.is_copy(model):
        raise ValueError(f"precompute[{name!r}] is an EMA, which changes in training.")
    if model.trainable_weights:
        raise ValueError(
            f"precompute[{name!r}], the model '{model.name}', has trainable weights. Its outputs "
            f"would be out of date after a step. Set `trainable = False` on it."
        )


def with_outputs(data: Any, models: Mapping[str, Any], what: str, size: int | None) -> Any:
    """Return a set of data, with the output of each model as an entry of x.

    Args:
        data: arrays, as `fit` takes them as x, or in a tuple (x, y, sample_weight).
        models: the models by name.
        what: the name of the data in messages.
        size: the number of rows that a model takes at once.
    """
    kind, parts = ("a function", ()) if is_function(data) else read(data, what)
    if kind != "arrays":
        raise TypeError(
            f"{what} are {type(data).__name__}, and precompute= needs arrays, whose rows it can "
            "match with outputs. Give arrays, or map the data set itself."
        )
    x = parts[0] if isinstance(parts[0], Mapping) else {"x": parts[0]}
    if taken := [name for name in models if name in x]:
        raise ValueError(
            f"precompute has the name {taken[0]!r}, and x has an entry of that name: it has "
            f"{', '.join(x)}. Choose another name."
        )
    found = {name: _outputs(name, given, parts[0], size or BATCH) for name, given in models.items()}
    return ({**x, **found}, *parts[1:])


def _outputs(name: str, given: Any, x: Any, size: int) -> Any:
    """Return the output of a model for all rows of x, in inference mode."""
    model, entry = _model(name, given)
    x = mapped(array, x if entry is None else _entry(name, x, entry))
    what = f"precompute[{name!r}], the model '{model.name}',"
    _check_one_batch(what, model, mapped(lambda leaf: leaf[:size], x))
    with announced(f"Computing '{name}' by '{model.name}' once"):
        outputs = model.predict(x, batch_size=size, verbose=0)
    _check_frozen(name, model)  # a model may have got its weights only now
    first = model.predict(mapped(lambda leaf: leaf[:size], x), batch_size=size, verbose=0)
    for all_rows, again in zip(tree.flatten(outputs), tree.flatten(first), strict=True):
        if not np.allclose(all_rows[:size], again, rtol=1e-3, atol=1e-5, equal_nan=True):
            raise ValueError(
                f"{what} gives other outputs for the same rows each time. Let it draw nothing at "
                "random in inference mode."
            )
    return mapped(_single, outputs)


def _check_one_batch(what: str, model: Any, x: Any) -> None:
    """Run a model on a first batch. Raise an error unless it returns a row for each row of x."""
    rows = len(tree.flatten(x)[0])
    with named_in_errors(what, x=x):
        outputs = model(x, training=False)
    if any(leaf is None or tuple(leaf.shape)[:1] != (rows,) for leaf in tree.flatten(outputs)):
        raise ValueError(
            f"{what} returns {describe(outputs)} for {rows} rows. Its outputs need a row for each "
            "row of x, as their first axis."
        )


def _entry(name: str, x: Any, entry: str) -> Any:
    if isinstance(x, Mapping) and entry in x:
        return x[entry]
    has = f"the entries {', '.join(x)}" if isinstance(x, Mapping) else "no entries"
    raise ValueError(f"precompute[{name!r}] takes the entry {entry!r} of x, which has {has}.")


def _single(leaf: Any) -> Any:
    """Return an array that every backend reads as data: NumPy itself has no bfloat16."""
    return leaf.astype("float32") if leaf.dtype.name == "bfloat16" else leaf

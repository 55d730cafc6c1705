"""From outputs to `{loss name: scalar}`: what a loss may return, and what it is reduced to."""

from typing import Any

import keras
from keras import ops, tree

from mlsystem import data
from mlsystem.signature import extras


def reduce(value: Any, where: str, size: Any, sample_weight: Any, ignored: bool) -> Any:
    """A loss as a scalar: a scalar is itself, a per-sample vector is weighted and averaged.

    `ignored` says that nobody has looked at the sample weights yet: then a vector is weighted
    here, and a scalar, which cannot be any more, is an error.
    """
    value = _tensor(value, where)
    if len(value.shape) == 0:
        if ignored and sample_weight is not None:
            raise ValueError(
                f"The data carries sample weights, which {where} would ignore. Let it take "
                "`sample_weight`, or return one loss per sample for them to be applied to."
            )
        return value
    if len(value.shape) != 1 or not _same(value.shape[0], size):
        raise ValueError(
            f"{where} returned a tensor of shape {tuple(value.shape)} for a batch of {size} "
            "samples. Return a scalar, a vector of one loss per sample, or a dict of these."
        )
    if ignored and sample_weight is not None:
        value = value * _vector(sample_weight, value, where)
    return ops.mean(value)


def _tensor(value: Any, where: str) -> Any:
    if value is None:
        raise ValueError(f"{where} returned None. Does it end in a `return`?")
    try:
        tensor = ops.convert_to_tensor(value)
        dtype = keras.backend.standardize_dtype(tensor.dtype)
    except Exception as error:
        raise _not_a_number(value, where) from error
    if "str" in dtype or dtype == "bool":
        raise _not_a_number(value, where)
    return ops.cast(tensor, keras.backend.result_type(dtype, "float32"))


def _not_a_number(value: Any, where: str) -> ValueError:
    return ValueError(
        f"{where} returned {value!r} of type {type(value).__name__}. "
        "Return a scalar tensor, one loss per sample, or a dict of these."
    )


def _same(found: Any, size: Any) -> bool:
    # Shapes that TensorFlow does not know until it runs fit any size.
    return not (isinstance(found, int) and isinstance(size, int)) or found == size


def _vector(sample_weight: Any, value: Any, where: str) -> Any:
    if isinstance(sample_weight, (dict, list, tuple)):
        raise ValueError(
            f"The sample weights are a {type(sample_weight).__name__}, and {where} returned one "
            "loss per sample, which takes one weight per sample. Give one array of weights, or let "
            "the loss take `sample_weight`."
        )
    return ops.reshape(ops.cast(sample_weight, value.dtype), (-1,))


def of_model(
    model: Any, x: Any, y: Any, outputs: Any, sample_weight: Any, training: bool
) -> tuple[Any, dict[str, Any]]:
    """What a model's `loss` returns, as a scalar, and the named terms that it is the sum of."""
    offered = extras(model.loss, sample_weight=sample_weight, training=training)
    value = model.loss(x, y, outputs, **offered)
    where = f"The loss of '{model.key}'"
    ignored = "sample_weight" not in offered
    size = _size(x)
    if not isinstance(value, dict):
        return reduce(value, where, size, sample_weight, ignored), {}
    terms = {
        name: reduce(
            term, f"The term '{name}' of the loss of '{model.key}'", size, sample_weight, ignored
        )
        for name, term in value.items()
    }
    return sum(terms.values()), terms


def _size(x: Any) -> Any:
    return next(leaf.shape[0] for leaf in tree.flatten(x) if leaf is not None and len(leaf.shape))


def scalar(value: Any, where: str) -> Any:
    """A loss that nothing is known of but that it is one: a scalar, or a vector to average."""
    value = _tensor(value, where)
    if len(value.shape) > 1:
        raise ValueError(
            f"{where} returned a tensor of shape {tuple(value.shape)}. "
            "Return a scalar, or a vector of one loss per sample."
        )
    return ops.mean(value)


def check_targets(key: str, y: Any) -> None:
    """Refuses data without targets for a loss that compares with them."""
    if y is None:
        raise ValueError(
            f"The loss given to '{key}' compares its outputs with y, and the data has no y. Give "
            "targets to `fit`, or override `loss` to say what else the outputs are measured by."
        )


def compiled(loss: Any, key: str, y: Any, outputs: Any, sample_weight: Any) -> Any:
    """A loss given by name, object or function, between a model's own targets and outputs."""
    check_targets(key, y)
    if isinstance(y, dict) and isinstance(outputs, dict) and key in outputs and key not in y:
        raise ValueError(
            f"The loss given to '{key}' compares outputs['{key}'] with y['{key}'], and y holds "
            f"{list(y)}. Give y an entry of that name."
        )
    own = data.own(sample_weight, key)
    return loss(data.own(y, key), data.own(outputs, key), own)


def named(
    given: Any, owner: str, batch: data.Batch, weighted: set[str]
) -> tuple[dict[str, Any], dict[str, dict[str, Any]]]:
    """What `compute_losses` returns, as scalars, and the terms of those given as dicts.

    `weighted` are the losses that have regarded the sample weights already.
    """
    if not isinstance(given, dict):
        raise ValueError(
            f"{owner}.compute_losses returned {type(given).__name__}; return a dict {{name: loss}}."
        )
    values, terms = {}, {}
    for name, value in given.items():
        where = f"The loss '{name}' of {owner}.compute_losses"
        parts = value if isinstance(value, dict) else {"": value}
        weight = batch.sample_weight
        size, ignored = _size(batch.x), name not in weighted
        parts = {t: reduce(v, where, size, weight, ignored) for t, v in parts.items()}
        values[name] = sum(parts.values())
        if isinstance(value, dict):
            terms[name] = parts
    return values, terms


def total(losses: list[Any]) -> Any:
    """The sum of what layers gave to `add_loss` and of regularizers."""
    return sum((ops.sum(loss) for loss in losses), 0.0)

"""Reduce what a loss returns to a scalar: check its shape, apply sample weights, average."""

from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import Any

import keras
from keras import ops, tree

from mlsystem import _keras
from mlsystem._errors import named_in_errors
from mlsystem.data.batch import Batch, own_entry
from mlsystem.step import loss_method
from mlsystem.step.loss_values import ForwardLosses


@dataclass
class Loss:
    """A loss as a scalar, with the named terms that sum to it.

    `size` is the number of samples in its average, and `sizes` the same for each term. They are
    None for a loss that returned a scalar, because the number is then unknown.
    """

    value: Any
    size: Any = None
    terms: dict[str, Any] = field(default_factory=dict)
    sizes: dict[str, Any] = field(default_factory=dict)


def reduced(value: Any, where: str, x: Any, sample_weight: Any, ignored: bool) -> Loss:
    """Reduce the result of a loss function (a scalar, a vector or a dict of these) to scalars."""
    if not isinstance(value, dict):
        return Loss(*reduce(value, where, x, sample_weight, ignored))
    found: dict[str, tuple[Any, Any]] = {}
    for name, term in value.items():
        of_term = f"The term '{name}' of {where[0].lower()}{where[1:]}"
        found[name] = reduce(term, of_term, x, sample_weight, ignored)
    terms = {name: term for name, (term, _) in found.items()}
    sizes = {name: size for name, (_, size) in found.items()}
    return Loss(sum(terms.values()), common(sizes.values()), terms, sizes)


def common(sizes: Iterable[Any]) -> Any:
    """Return the number of samples that several losses share. None if it differs or may differ."""
    first, *others = [*sizes] or [None]
    return first if all(other is first or _equal(other, first) for other in others) else None


def _equal(one: Any, other: Any) -> bool:
    return isinstance(one, int) and isinstance(other, int) and one == other


def reduce(value: Any, where: str, x: Any, sample_weight: Any, ignored: bool) -> tuple[Any, Any]:
    """Reduce a loss to a scalar: keep a scalar, weight and average a vector of samples' losses.

    Returns the loss and its number of samples, None for a scalar. The samples belong to `x`, or to
    one of the streams in it. `ignored` says that the sample weights are not applied yet. Then a
    vector is weighted here. A scalar can no longer be weighted and raises an error.
    """
    value = _tensor(value, where)
    if len(value.shape) == 0:
        if ignored and sample_weight is not None:
            raise ValueError(
                f"The data carries sample weights, which {where} would ignore. Let it take "
                "`sample_weight`, or return one loss per sample for them to be applied to."
            )
        return value, None
    sizes = _sizes(x)
    if len(value.shape) != 1 or not any(_same(value.shape[0], size) for size in sizes):
        raise ValueError(
            f"{where} returned a tensor of shape {tuple(value.shape)} for a batch of "
            f"{' or '.join(map(str, sizes))} samples. Return a scalar, a vector of one loss per "
            "sample, or a dict of these."
        )
    if ignored and sample_weight is not None:
        value = value * _vector(sample_weight, value, where)
    return ops.mean(value), ops.shape(value)[0]


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
    # TensorFlow does not know some shapes before it runs. They match any size.
    return not (isinstance(found, int) and isinstance(size, int)) or found == size


def _vector(sample_weight: Any, value: Any, where: str) -> Any:
    if isinstance(sample_weight, (dict, list, tuple)):
        raise ValueError(
            f"The sample weights are a {type(sample_weight).__name__}, and {where} returned one "
            "loss per sample, which takes one weight per sample. Give one array of weights, or let "
            "the loss take `sample_weight`."
        )
    return ops.reshape(ops.cast(sample_weight, value.dtype), (-1,))


def of_model(model: Any, key: str, batch: Batch, outputs: Any, training: bool) -> Loss:
    """Compute a model's `loss` as a scalar, with the named terms that sum to it."""
    where, weight = f"The loss of '{key}'", batch.sample_weight
    parts = (batch.x, batch.y, outputs)
    value, is_weighted = loss_method.call(model, "loss", where, parts, weight, training)
    return reduced(value, where, batch.x, weight, not is_weighted)


def _sizes(x: Any) -> list[Any]:
    """Return the numbers of samples in a batch: one number, or one per stream."""
    leaves = [leaf for leaf in tree.flatten(x) if leaf is not None and len(leaf.shape)]
    return list(dict.fromkeys(leaf.shape[0] for leaf in leaves))


def own_size(y: Any, key: str) -> Any:
    """Return the number of samples in a model's own targets. None if they are several tensors."""
    own = own_entry(y, key)
    return ops.shape(own)[0] if len(getattr(own, "shape", ())) else None


def scalar(value: Any, where: str) -> tuple[Any, Any]:
    """Reduce any loss to a scalar: keep a scalar, average a vector.

    Returns the loss and its number of samples, None for a scalar.
    """
    value = _tensor(value, where)
    if len(value.shape) > 1:
        raise ValueError(
            f"{where} returned a tensor of shape {tuple(value.shape)}. "
            "Return a scalar, or a vector of one loss per sample."
        )
    return ops.mean(value), ops.shape(value)[0] if len(value.shape) else None


def check_targets(key: str, y: Any) -> None:
    """Raise an error if the data has no targets for a loss that needs them."""
    if y is None:
        raise ValueError(
            f"The loss given to '{key}' compares its outputs with y, and the data has no y. Give "
            "targets to `fit`, or override `loss` to say what else the outputs are measured by."
        )


def compiled(loss: Any, key: str, y: Any, outputs: Any, sample_weight: Any) -> Any:
    """Compute a loss (name, object or function) between a model's own targets and outputs."""
    check_targets(key, y)
    if isinstance(y, dict) and isinstance(outputs, dict) and key in outputs and key not in y:
        raise ValueError(
            f"The loss given to '{key}' compares outputs['{key}'] with y['{key}'], and y holds "
            f"{list(y)}. Give y an entry of that name."
        )
    y, outputs, own = (own_entry(part, key) for part in (y, outputs, sample_weight))
    with named_loss(loss, key, y, outputs):
        return loss(y, outputs, own)


def named_loss(loss: Any, key: str, y: Any, outputs: Any) -> Any:
    """Add the name of a given loss to an error raised inside, with the shapes that it compares."""
    name = _keras.loss_name(loss)
    what = f"The loss {name!r} of '{key}'" if name else f"The loss given to '{key}'"
    return named_in_errors(what, outputs=outputs, y=y)


def named(
    given: Any, owner: str, batch: Batch, known: ForwardLosses, is_weighted: bool
) -> dict[str, Loss]:
    """Reduce the result of `compute_losses` to scalars.

    A loss that has no terms and stands under a member's name gets the terms of that member's loss.

    Args:
        given: the result of `compute_losses`.
        owner: the class of the system, for errors.
        batch: the batch.
        known: the losses of members. One that is returned unchanged is a scalar already.
        is_weighted: whether `compute_losses` took the sample weights.
    """
    if not isinstance(given, dict):
        raise ValueError(
            f"{owner}.compute_losses returned {type(given).__name__}; return a dict {{name: loss}}."
        )
    found = {}
    for name, value in given.items():
        own = known.of_members.get(name)
        if own is not None and value is own.value:
            found[name] = own
            continue
        where = f"The loss '{name}' of {owner}.compute_losses"
        ignored = not is_weighted and own is None
        found[name] = loss = reduced(value, where, batch.x, batch.sample_weight, ignored)
        if own is not None and not loss.terms:
            size = own.size if loss.size is None else loss.size
            found[name] = Loss(loss.value, size, own.terms, own.sizes)
    return found


def total(losses: list[Any]) -> Any:
    """Return the sum of regularizers and of the losses that layers gave to `add_loss`."""
    return sum((ops.sum(loss) for loss in losses), 0.0)

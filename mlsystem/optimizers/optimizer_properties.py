"""Tell whether an optimizer scales the loss or accumulates gradients."""

from collections.abc import Iterable, Mapping
from typing import Any

import keras
from keras import ops

from mlsystem.engine import engine

_Scaled = keras.optimizers.LossScaleOptimizer
# Keras has MultiOptimizer since version 3.15.
_SPECIAL = tuple(filter(None, (_Scaled, getattr(keras.optimizers, "MultiOptimizer", None))))


def scales(optimizer: Any) -> bool:
    """Return whether an optimizer scales the loss, and skips updates that overflow by itself."""
    return isinstance(optimizer, _Scaled)


def is_plain(optimizer: Any) -> bool:
    """Return whether each call of an optimizer is an update with the unchanged gradients."""
    is_special = isinstance(optimizer, _SPECIAL) or optimizer.loss_scale_factor is not None
    return not is_special and not optimizer.gradient_accumulation_steps


def updates(optimizer: Any) -> Any:
    """Return the number of updates so far of an optimizer that may skip updates, else None."""
    if not scales(optimizer) and not accumulates(optimizer):
        return None
    return engine.kept(ops.convert_to_tensor(optimizer.iterations))


def accumulates(optimizer: Any) -> bool:
    """Return whether an optimizer sums gradients over several batches."""
    return bool(getattr(optimizer, "inner_optimizer", optimizer).gradient_accumulation_steps)


def wants_all(optimizer: Any) -> bool:
    """Return whether an optimizer needs gradients for all of its weights in each update."""
    return isinstance(optimizer, _SPECIAL[1:])


def used(optimizer: Any, kinds: Iterable[str], options: Iterable[str]) -> list[str]:
    """Return which of some classes and options an optimizer has, also inside loss scaling."""
    inner = getattr(optimizer, "inner_optimizer", optimizer)
    given = {option: getattr(inner, option, None) for option in options}
    set_ = [option for option, value in given.items() if value is not None and value is not False]
    return [kind for kind in kinds if kind == type(inner).__name__] + set_


def scales_of(optimizers: Mapping[str, Any], models: Iterable[str]) -> dict[str, Any]:
    """Return the scale of the losses for the optimizer of each model that scales them."""
    return {n: found for n in models if (found := scale(optimizers[n])) is not None}


def scale(optimizer: Any) -> Any:
    """Return the scale of the losses for an optimizer, or None. It divides gradients by it."""
    is_scaled = isinstance(optimizer, _Scaled) or optimizer.loss_scale_factor is not None
    return optimizer.scale_loss(ops.ones(())) if is_scaled else None

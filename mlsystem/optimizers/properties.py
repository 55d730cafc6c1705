"""What an optimizer does beyond one update per call: scale the loss, accumulate gradients."""

from typing import Any

import keras
from keras import ops

from mlsystem.engine import engine

_Scaled = keras.optimizers.LossScaleOptimizer
# MultiOptimizer is there since Keras 3.15.
_SPECIAL = tuple(filter(None, (_Scaled, getattr(keras.optimizers, "MultiOptimizer", None))))


def scales(optimizer: Any) -> bool:
    """Whether an optimizer scales the loss, and itself skips updates that overflow."""
    return isinstance(optimizer, _Scaled)


def is_plain(optimizer: Any) -> bool:
    """Whether each call of an optimizer is an update by the gradients as they are."""
    is_special = isinstance(optimizer, _SPECIAL) or optimizer.loss_scale_factor is not None
    return not is_special and not optimizer.gradient_accumulation_steps


def updates(optimizer: Any) -> Any:
    """The number of updates so far of an optimizer that may leave some out; None of any other."""
    if not scales(optimizer) and not accumulates(optimizer):
        return None
    return engine.kept(ops.convert_to_tensor(optimizer.iterations))


def accumulates(optimizer: Any) -> bool:
    """Whether an optimizer sums gradients over several batches."""
    return bool(getattr(optimizer, "inner_optimizer", optimizer).gradient_accumulation_steps)


def wants_all(optimizer: Any) -> bool:
    """Whether an optimizer refuses to update only some of its weights."""
    return isinstance(optimizer, _SPECIAL[1:])


def scale(optimizer: Any) -> Any:
    """What an optimizer wants its losses scaled by, or None. It divides gradients by it itself."""
    is_scaled = isinstance(optimizer, _Scaled) or optimizer.loss_scale_factor is not None
    return optimizer.scale_loss(ops.ones(())) if is_scaled else None

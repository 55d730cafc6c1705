"""What an optimizer does beyond one update per call: scale the loss, accumulate gradients."""

import functools
from typing import Any

import keras
from keras import ops

from mlsystem import engine


def scales(optimizer: Any) -> bool:
    """Whether an optimizer scales the loss, and itself skips updates that overflow."""
    return isinstance(optimizer, keras.optimizers.LossScaleOptimizer)


def updates(optimizer: Any) -> Any:
    """The number of updates so far of an optimizer that may leave some out; None of any other."""
    if not scales(optimizer) and not accumulates(optimizer):
        return None
    return engine.chosen.kept(ops.convert_to_tensor(optimizer.iterations))


def accumulates(optimizer: Any) -> bool:
    """Whether an optimizer sums gradients over several batches."""
    return bool(getattr(optimizer, "inner_optimizer", optimizer).gradient_accumulation_steps)


def wants_all(optimizer: Any) -> bool:
    """Whether an optimizer refuses to update only some of its weights."""
    several = getattr(keras.optimizers, "MultiOptimizer", None)  # which is there since Keras 3.15
    return several is not None and isinstance(optimizer, several)


def is_scaled(optimizer: Any) -> bool:
    """Whether an optimizer wants its losses scaled."""
    return scales(optimizer) or optimizer.loss_scale_factor is not None


def scale(*optimizers: Any) -> Any:
    """The factor by which optimizers want their losses scaled, or None; they unscale themselves.

    That of several is the smallest: at which the gradients of none overflow that hold at its own.
    """
    found = [o.scale_loss(ops.ones(())) for o in optimizers if is_scaled(o)]
    return functools.reduce(ops.minimum, found) if found else None

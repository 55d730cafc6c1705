"""`nonfinite`: skip, raise or keep updates with NaN or infinite gradients."""

import warnings
from collections.abc import Mapping, Sequence
from typing import Any

import keras
from keras import ops

from mlsystem import _keras, _learner
from mlsystem._learner import CopyBase, Learner, SystemBase, variables_once
from mlsystem.engine import engine
from mlsystem.optimizers import optimizer_properties
from mlsystem.step import context
from mlsystem.step.loss_values import LossValues


def finite(learner: SystemBase, this: context.Running, gradients: Mapping[str, Any]) -> Any:
    """Return, by model, a boolean tensor: whether its gradients are finite. None if unchecked."""
    if learner.model.nonfinite == "keep":
        return dict.fromkeys(gradients)
    known = {name: [g for g in mine if g is not None] for name, mine in gradients.items()}
    found = {name: engine.all_finite(mine) if mine else None for name, mine in known.items()}
    if this is not None:
        optimizers = learner.optimizers
        for name, condition in found.items():
            if condition is not None:
                _count(learner, this, name, optimizers[name], condition)
    return found


def _count(learner: SystemBase, this: context.Step, name: str, optimizer: Any, finite: Any) -> None:
    """Count a skipped update, except overflows from which an optimizer finds its loss scale."""
    skipped = ops.logical_not(finite)
    if optimizer_properties.scales(optimizer):
        names, taken = this.ledger.pending.get(name, (set(), LossValues()))
        values = [ops.cast(taken.losses[n], "float32") for n in names if n in taken.losses]
        lost = ops.logical_not(ops.isfinite(sum(values, ops.zeros(()))))
        scale = optimizer_properties.scale(optimizer)  # a scale of 1 cannot cause an overflow
        skipped = ops.logical_and(skipped, ops.logical_or(lost, scale <= 1))
    counter = learner.logs.skips[name].total
    counter.assign_add(ops.cast(skipped, counter.dtype))


def forward_state(learner: Learner) -> list[Any]:
    """Return the variables that `forward` may assign, such as statistics and queues.

    They belong to the model and all of its layers. Random generators and metrics are left out.
    """
    layers = _keras.flat_layers(learner.model)
    return variables_once(variable for layer in layers for variable in _own_state(layer))


def _own_state(layer: Any) -> list[Any]:
    learner = _learner.of(layer)
    if isinstance(learner, CopyBase):
        return learner.averaged_state()
    return _keras.own_state(layer)


def skipped(learner: SystemBase) -> dict[str, int]:
    """Return the logs of an epoch: the skipped updates of each model that ever had one."""
    known = learner.logs.known_skips
    for name, number in learner.logs.skipped().items():
        if number and name not in known and learner.model.nonfinite == "skip":
            _warn(name)
        if number or name in known:
            known[name] = number
    return {f"{name}_skipped": number for name, number in known.items()}


def check_callbacks(system: Any, callbacks: Sequence[Any]) -> None:
    """Warn if `TerminateOnNaN` waits for a loss that is never logged."""
    inner = [getattr(callback, "callback", callback) for callback in callbacks]
    waits = any(isinstance(callback, keras.callbacks.TerminateOnNaN) for callback in inner)
    if waits and getattr(system, "nonfinite", "keep") == "skip":
        warnings.warn(
            f"TerminateOnNaN will have no effect: '{system.name}' skips updates that are not "
            "finite, and does not log their losses. Set nonfinite = 'raise', which ends training "
            "itself, or 'keep'.",
            stacklevel=2,
        )


def check(learner: SystemBase) -> None:
    """Raise an error or warn about skipped updates. Warnings wait for batch 1, 2, 4, 8, ..."""
    batches, nonfinite = learner.compiled.batches, learner.model.nonfinite
    if nonfinite == "raise":
        for name, number in learner.logs.skipped().items():
            if number:
                raise FloatingPointError(f"{_text(name, f'batch {batches}')}.")
    elif nonfinite == "skip" and batches & (batches - 1) == 0:  # a power of two
        skipped(learner)


def _warn(name: str) -> None:
    warnings.warn(
        f"{_text(name, 'some batches')}. It was not updated on these; '{name}_skipped' in the logs "
        "counts them. nonfinite='raise' ends training there, and 'keep' applies such updates.",
        stacklevel=2,
    )


def _text(name: str, where: str) -> str:
    return (
        f"The gradient of '{name}' is not finite on {where}. Look for it in the data, or in a loss "
        "or layer that divides or takes a logarithm"
    )

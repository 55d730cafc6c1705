"""What becomes of updates whose gradient is not finite: `nonfinite` of a system."""

import warnings
from collections.abc import Sequence
from typing import Any

import keras
from keras import ops

from mlsystem import _keras, engine, step


def finite(system: Any, name: str, gradients: Sequence[Any]) -> Any:
    """Whether the gradients of a model are finite, a boolean tensor; None where nobody asks.

    An optimizer that scales the loss asks by itself: overflow is how it finds its scale.
    """
    scales = isinstance(system.optimizers[name], keras.optimizers.LossScaleOptimizer)
    if system.nonfinite == "keep" or scales or not gradients:
        return None
    condition = engine.chosen.all_finite(list(gradients))
    if condition is not None and (this := step.of(system)):
        skipped = ops.logical_not(condition)
        if this.gate is not None:
            skipped = ops.logical_and(this.gate, skipped)
        counter = system._run.logs.skips[name].total
        counter.assign_add(ops.cast(skipped, counter.dtype))
    return condition


def forward_state(system: Any) -> list[Any]:
    """The variables that a forward pass on a bad batch spoils: the statistics of batch norm."""
    if system.nonfinite == "keep":
        return []
    leaves = [(system._run.members or {}).get(name) for name in system._known_models()]
    models = [leaf for leaf in leaves if isinstance(leaf, keras.Layer)]  # not `self`
    layers = [layer for model in models for layer in _keras.flat_layers(model) if layer.trainable]
    found = [v for layer in layers for v in _keras.own_state(layer)]
    return [v for v in found if keras.backend.is_float_dtype(v.dtype)]


def skipped(system: Any) -> dict[str, int]:
    """The logs of an epoch: the number of skipped updates of each model that ever had one."""
    known = system._run.skipped
    for name, number in system._run.logs.skipped().items():
        if number and name not in known and system.nonfinite == "skip":
            _warn(system, name)
        if number or name in known:
            known[name] = number
    return {f"{name}_skipped": number for name, number in known.items()}


def check_callbacks(system: Any, callbacks: Sequence[Any]) -> None:
    """Warns where a callback waits for a loss that will not come."""
    inner = [getattr(callback, "callback", callback) for callback in callbacks]
    waits = any(isinstance(callback, keras.callbacks.TerminateOnNaN) for callback in inner)
    if waits and getattr(system, "nonfinite", "keep") == "skip":
        warnings.warn(
            f"TerminateOnNaN will not see what it waits for: '{system.name}' skips updates that "
            "are not finite, and does not log their losses. Set nonfinite = 'raise', which ends "
            "training itself, or 'keep'.",
            stacklevel=2,
        )


def check(system: Any) -> None:
    """Says at once what there is to say of the batches so far, as far as that is cheap."""
    batches = system._run.batches
    if system.nonfinite == "raise":
        for name, number in system._run.logs.skipped().items():
            if number:
                raise FloatingPointError(f"{_text(name, f'batch {batches}')}.")
    elif system.nonfinite == "skip" and batches & (batches - 1) == 0:  # a power of two
        skipped(system)


def _warn(system: Any, name: str) -> None:
    warnings.warn(
        f"{_text(name, 'some batches')}. It was not updated on these; '{name}_skipped' in the logs "
        "counts them. nonfinite='raise' ends training there, and 'keep' goes on regardless.",
        stacklevel=2,
    )


def _text(name: str, where: str) -> str:
    return (
        f"The gradient of '{name}' is not finite on {where}. Look for it in the data, or in a loss "
        "or layer that divides or takes a logarithm"
    )

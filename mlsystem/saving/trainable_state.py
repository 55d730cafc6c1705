"""Save and restore which layers and weights are frozen."""

from dataclasses import replace
from typing import Any

from mlsystem import _keras
from mlsystem.preparation import configuration, member_optimizers


def state(system: Any) -> dict[str, Any]:
    """Return which layers and weights are trainable, and which weights the optimizers are for."""
    return {
        "layers": [layer.trainable for layer in _keras.flat_layers(system)],
        "weights": [weight.trainable for weight in system.weights],
        "optimized": member_optimizers.optimized(system),
    }


def restore(system: Any, state: dict[str, Any]) -> None:
    """Freeze and unfreeze as before, with optimizers for the same weights."""
    layers, weights = _keras.flat_layers(system), system.weights
    if (len(layers), len(weights)) != (len(state["layers"]), len(state["weights"])):
        return  # loading the weights reports the mismatch
    for layer, trainable in zip(layers, state["layers"], strict=True):
        if layer.trainable != trainable:
            layer.trainable = trainable  # also sets all inner layers, which follow in this loop
    for weight, trainable in zip(weights, state["weights"], strict=True):
        if weight.trainable != trainable:
            weight.trainable = trainable
    learner = system._mlsystem
    learner.given = replace(learner.given, optimized=state["optimized"])
    configuration.retrain(learner)

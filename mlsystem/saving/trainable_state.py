"""What of a system is frozen, as a checkpoint keeps it."""

from dataclasses import replace
from typing import Any

from mlsystem import _keras
from mlsystem.preparation import configuration, member_optimizers


def state(system: Any) -> dict[str, Any]:
    """Which layers and weights are trained, and what weights the optimizers are for."""
    return {
        "layers": [layer.trainable for layer in _keras.flat_layers(system)],
        "weights": [weight.trainable for weight in system.weights],
        "optimized": member_optimizers.optimized(system),
    }


def restore(system: Any, state: dict[str, Any]) -> None:
    """Freezes and thaws as it was, with optimizers for the same weights."""
    layers, weights = _keras.flat_layers(system), system.weights
    if (len(layers), len(weights)) != (len(state["layers"]), len(state["weights"])):
        return  # what does not fit is said where the weights are loaded
    for layer, trainable in zip(layers, state["layers"], strict=True):
        if layer.trainable != trainable:
            layer.trainable = trainable  # which is that of all layers in it, until their turn
    for weight, trainable in zip(weights, state["weights"], strict=True):
        if weight.trainable != trainable:
            weight.trainable = trainable
    learner = system._mlsystem
    learner.given = replace(learner.given, optimized=state["optimized"])
    configuration.retrain(learner)

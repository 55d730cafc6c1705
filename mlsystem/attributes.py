"""The numbers in attributes of models and layers, which a captured step holds as they were."""

from typing import Any

from mlsystem import _keras

_PLAIN = (bool, int, float, str)
# What Keras and torch set on a model or layer while it is in use.
OF_KERAS = {
    *("stop_training", "stop_evaluating", "stop_predicting", "training", "built"),
    *("steps_per_execution", "jit_compile", "run_eagerly", "supports_masking"),
}


def is_number(name: str, value: Any) -> bool:
    """Whether an attribute of a user's holds a number, or a text."""
    return isinstance(value, _PLAIN) and name[0] != "_" and name not in OF_KERAS


def of_layers(learner: Any) -> dict[tuple[int, str], Any]:
    """Those of all layers; models notice by themselves when one is set."""
    return {
        (id(layer), name): value
        for layer in _keras.flat_layers(learner)
        if not hasattr(layer, "_run")
        for name, value in vars(layer).items()
        if is_number(name, value)
    }

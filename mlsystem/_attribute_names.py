"""Attribute names: what users declare on a system, and what Keras sets itself."""

from typing import Any

_PLAIN = (bool, int, float, str)
# Attributes that Keras and torch set on a model or layer in use.
OF_KERAS = {
    *("stop_training", "stop_evaluating", "stop_predicting", "training", "built"),
    *("steps_per_execution", "jit_compile", "run_eagerly", "supports_masking"),
    *("compiled", "history", "train_function", "test_function", "predict_function"),
    *("build", "quantize"),
}
# Attributes that users declare on a system.
TURNS = ("update_every", "update_start", "update_end")
SAVED = ("routing", "phases", *TURNS, "nonfinite", "balance")
DECLARED = (*SAVED, "update_when")  # constructors set it, like declarations with variables


def is_number(name: str, value: Any) -> bool:
    """Return whether a user's attribute holds a number or a text."""
    return isinstance(value, _PLAIN) and name[0] != "_" and name not in OF_KERAS

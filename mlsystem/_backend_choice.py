"""Choosing Keras' backend before Keras is imported, so that a missing TensorFlow is no error.

Keras uses TensorFlow if nobody chose a backend. Importing mlsystem picks an installed backend
first. It respects every choice that exists: `KERAS_BACKEND`, a Keras configuration file (except
the file that Keras itself writes), or a Keras that is already imported.
"""

import importlib.util
import json
import os
import sys
from pathlib import Path

BACKENDS = ("jax", "torch", "tensorflow")
# Keras writes this file on its first import, so it is not a user's choice.
KERAS_DEFAULT = {
    "floatx": "float32",
    "epsilon": 1e-07,
    "backend": "tensorflow",
    "image_data_format": "channels_last",
}


_reason = ""


def choose() -> None:
    """Set `KERAS_BACKEND` to the first installed of `BACKENDS`, if nobody chose a backend."""
    global _reason
    _reason = _chosen()
    if not _reason:
        os.environ["KERAS_BACKEND"] = _installed()


def why() -> str:
    """Say who chose the backend."""
    return _reason or f"the first installed of {', '.join(BACKENDS)}"


def _chosen() -> str:
    """Return who chose a backend. Empty if nobody did."""
    if os.environ.get("KERAS_BACKEND"):
        return "KERAS_BACKEND is set"
    if "keras" in sys.modules:
        return "Keras was imported before mlsystem"
    file = Path(os.environ.get("KERAS_HOME") or Path.home() / ".keras") / "keras.json"
    try:
        is_default = json.loads(file.read_text()) == KERAS_DEFAULT
    except (OSError, ValueError):
        return ""
    return "" if is_default else f"{file} names it"


def _installed() -> str:
    for name in BACKENDS:
        if importlib.util.find_spec(name) is not None:
            return name
    commands = "\n".join(f"    python -m pip install 'mlsystem[{name}]'" for name in BACKENDS)
    raise ImportError(
        "mlsystem runs on a Keras backend, and none of jax, torch and tensorflow is installed. "
        f"Install one of them:\n{commands}"
    )

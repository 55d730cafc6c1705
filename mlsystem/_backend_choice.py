"""Choosing Keras' backend before Keras is imported, so that a missing TensorFlow is no error.

Keras falls back on TensorFlow where nobody has chosen. Importing mlsystem first picks an installed
backend instead, and leaves every choice alone that has been made: `KERAS_BACKEND`, a Keras
configuration file (other than the one that Keras writes by itself), or a Keras that is already
imported.
"""

import importlib.util
import json
import os
import sys
from pathlib import Path

BACKENDS = ("jax", "torch", "tensorflow")
# Keras leaves this file behind wherever it is imported first; nobody has chosen it.
KERAS_DEFAULT = {
    "floatx": "float32",
    "epsilon": 1e-07,
    "backend": "tensorflow",
    "image_data_format": "channels_last",
}


def choose() -> None:
    """Sets `KERAS_BACKEND` to the first installed of `BACKENDS`, if nobody has chosen."""
    if not _chosen():
        os.environ["KERAS_BACKEND"] = _installed()


def _chosen() -> bool:
    if "keras" in sys.modules or os.environ.get("KERAS_BACKEND"):
        return True
    home = Path(os.environ.get("KERAS_HOME") or Path.home() / ".keras")
    try:
        return json.loads((home / "keras.json").read_text()) != KERAS_DEFAULT
    except (OSError, ValueError):
        return False


def _installed() -> str:
    for name in BACKENDS:
        if importlib.util.find_spec(name) is not None:
            return name
    commands = "\n".join(f"    python -m pip install 'mlsystem[{name}]'" for name in BACKENDS)
    raise ImportError(
        "mlsystem runs on a Keras backend, and none of jax, torch and tensorflow is installed. "
        f"Install one of them:\n{commands}"
    )

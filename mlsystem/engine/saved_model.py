"""SavedModels of TensorFlow, written on TensorFlow and on JAX, and run by TensorFlow."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import keras
import numpy as np


def write(served: Any, path: Path) -> None:
    """Write a model as a SavedModel, with one endpoint, `serve`."""
    archive = keras.export.ExportArchive()
    archive.track(served.model)
    specs = [keras.InputSpec(shape=p.shape, dtype=p.dtype, name=p.name) for p in served.inputs]
    archive.add_endpoint("serve", served, input_signature=specs)
    archive.write_out(str(path), verbose=False)


def run(path: Path, names: Sequence[str], arrays: Sequence[Any]) -> dict[str, Any]:
    """Run a SavedModel on NumPy arrays, as TF Serving does, by its default signature."""
    import tensorflow as tf

    serve = tf.saved_model.load(str(path)).signatures["serving_default"]
    given = {name: tf.constant(array) for name, array in zip(names, arrays, strict=True)}
    return {name: np.asarray(value) for name, value in serve(**given).items()}

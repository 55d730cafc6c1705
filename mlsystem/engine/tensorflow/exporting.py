"""Files that TensorFlow writes."""

import tempfile
from pathlib import Path
from typing import Any

import tensorflow as tf

from mlsystem.engine import saved_model


def write_litert(served: Any, path: Path) -> None:
    """Write a model for LiteRT. What LiteRT lacks is left to TensorFlow's own operations."""
    with tempfile.TemporaryDirectory() as folder:
        saved_model.write(served, Path(folder))
        converter = tf.lite.TFLiteConverter.from_saved_model(folder)
        kinds = tf.lite.OpsSet
        converter.target_spec.supported_ops = [kinds.TFLITE_BUILTINS, kinds.SELECT_TF_OPS]
        path.write_bytes(converter.convert())


WRITERS = {"tf_saved_model": saved_model.write, "litert": write_litert}
RUNTIMES = {"tf_saved_model": saved_model.run}

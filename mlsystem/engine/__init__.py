"""The engine: what differs between the backends. Only this folder imports a backend.

`base.py` describes the methods of `engine`. `jax/`, `tensorflow/` and `torch/` implement them.
"""

import importlib
from typing import Any, cast

import keras

from mlsystem.engine.base import Engine

_CLASSES = {"jax": "JaxEngine", "tensorflow": "TensorFlowEngine", "torch": "TorchEngine"}


class _CannotTrain:
    """Stands in for an engine on a backend that has no gradients."""

    as_layer, predict_scope, replicas = Engine.as_layer, Engine.predict_scope, Engine.replicas
    initial_values = Engine.initial_values

    def __init__(self, name: str) -> None:
        self.name = name

    def __getattr__(self, method: str) -> Any:
        raise RuntimeError(
            f"Keras runs on the backend '{self.name}', which has no gradients and can only "
            "predict. To train or evaluate, set KERAS_BACKEND to 'jax', 'torch' or 'tensorflow' "
            "before Keras is imported."
        )


def _engine_of(backend: str) -> Engine:
    if backend not in _CLASSES:
        return cast(Engine, _CannotTrain(backend))
    module = importlib.import_module(f"mlsystem.engine.{backend}.engine")
    return cast(Engine, getattr(module, _CLASSES[backend])())


engine = _engine_of(keras.backend.backend())

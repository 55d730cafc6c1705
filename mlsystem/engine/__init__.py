"""The engine: what differs between the backends. Only this folder imports a backend.

`base.py` describes the methods of `engine`. `jax/`, `tensorflow/` and `torch/` implement them.
"""

import contextlib
from typing import Any, cast

import keras

from mlsystem.engine.base import Engine


class _CannotTrain:
    """Stands in for an engine on a backend that has no gradients."""

    def __init__(self, name: str) -> None:
        self.name = name

    def as_layer(self, net: Any) -> Any:
        return net

    def predict_scope(self, system: Any) -> contextlib.AbstractContextManager[Any]:
        return contextlib.nullcontext()

    def __getattr__(self, method: str) -> Any:
        raise RuntimeError(
            f"Keras runs on the backend '{self.name}', which has no gradients and can only "
            "predict. To train or evaluate, set KERAS_BACKEND to 'jax', 'torch' or 'tensorflow' "
            "before Keras is imported."
        )


def _engine_of(backend: str) -> Engine:
    if backend == "jax":
        from mlsystem.engine.jax import JaxEngine

        return JaxEngine()
    if backend == "tensorflow":
        from mlsystem.engine.tensorflow import TensorFlowEngine

        return TensorFlowEngine()
    if backend == "torch":
        from mlsystem.engine.torch import TorchEngine

        return TorchEngine()
    return cast(Engine, _CannotTrain(backend))


engine = _engine_of(keras.backend.backend())
chosen, name = engine, engine.name

"""The parts of the losses in `keras.ops`, for mlsystem and for Keras' guides."""

import contextlib
from typing import Any

import keras
from keras import ops

from benchmarks.peers import steps


class KerasFunctions(steps.Functions):
    """See `Functions`. `random` is a `keras.random.SeedGenerator`."""

    np = ops
    entropy = keras.losses.BinaryCrossentropy(from_logits=True)
    constant = staticmethod(contextlib.nullcontext)

    def mse(self, outputs: Any, y: Any) -> Any:
        return ops.mean(keras.losses.mean_squared_error(y, outputs))

    def uniform(self, images: Any, low: float, high: float) -> Any:
        shape = (ops.shape(images)[0], 1, 1)
        return keras.random.uniform(shape, low, high, seed=self.random)

    def normal(self, like: Any, *shape: int) -> Any:
        return keras.random.normal((ops.shape(like)[0], *shape), seed=self.random)

    def nats(self, images: Any, logits: Any) -> Any:
        nats = keras.losses.binary_crossentropy(images, logits, from_logits=True)
        return images.shape[-1] * nats

    def cosine(self, one: Any, other: Any) -> Any:
        return ops.sum(ops.normalize(one, axis=-1) * ops.normalize(other, axis=-1), axis=-1)

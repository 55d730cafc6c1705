"""Programs that train by Keras' `fit`: mlsystem, and train steps as in Keras' guides.

They share the parts of the losses, in `keras.ops`.
"""

import contextlib
from collections.abc import Iterable
from typing import Any

import keras
from keras import ops

from benchmarks.networks.layers import describe
from benchmarks.peers import steps
from benchmarks.program import FOR_KERAS, Program, Segment, torch_batches

COMPILED = ("jit_compile", "run_eagerly", "steps_per_execution")


class KerasFunctions(steps.Functions):
    """See `Functions`. `random` is a `keras.random.SeedGenerator`."""

    np = ops
    entropy = keras.losses.BinaryCrossentropy(from_logits=True)
    constant = staticmethod(contextlib.nullcontext)  # guides for PyTorch have another

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


class Steps(keras.callbacks.Callback):
    """Tells the clock of a segment of each step, where drawing a batch does not."""

    def __init__(self, segment: Segment) -> None:
        super().__init__()
        self.on_train_batch_begin = lambda step, logs=None: segment.before(step)


class KerasFit(Program):
    """Any Keras model whose `fit` is given the batches."""

    model: Any

    def batches(self) -> list[tuple[Any, ...]]:
        if self.workload.bfloat16:
            keras.config.set_dtype_policy("mixed_bfloat16")
        is_torch = self.backend == "torch"
        return torch_batches(self.given, self.device, False) if is_torch else self.given

    def train(self, segment: Any) -> dict[str, float]:
        callbacks = [Steps(segment)] if self.backend == "tensorflow" else None
        return self.fit(FOR_KERAS[self.backend](segment), callbacks=callbacks)

    def fit(self, *data: Any, **options: Any) -> dict[str, float]:
        """Calls `fit`; the losses by the names that all programs use."""
        history = self.model.fit(*data, verbose=0, **options).history
        return {name: float(values[-1]) for name, values in history.items()}

    def weights(self) -> dict[str, Iterable[Any]]:
        # A model alone is its own network.
        nets = {name: getattr(self.model, name, self.model) for name in describe(self.workload)}
        return {name: net.trainable_weights for name, net in nets.items()}


class MLSystem(KerasFit):
    """The workload in mlsystem, made and compiled with the options of the program."""

    def batches(self) -> list[tuple[Any, ...]]:
        from benchmarks.peers.keras_systems import SYSTEMS  # here, so that no clock sees the import

        self.system = SYSTEMS[self.workload.kind]
        return super().batches()

    def build(self) -> None:
        compiled = {name: value for name, value in self.options.items() if name in COMPILED}
        made = {name: value for name, value in self.options.items() if name not in COMPILED}
        self.every = compiled.get("steps_per_execution", 1)
        self.model = self.system(self.workload, **made)
        if compiled:
            self.model.compile(**compiled)

    def fit(self, *data: Any, **options: Any) -> dict[str, float]:
        logs = super().fit(*data, **options)
        if self.workload.kind in ("gan", "dense_gan", "wgan_gp"):
            names = describe(self.workload)  # one that is never updated logs no loss
            return {name: logs[f"{name}_loss"] for name in names if f"{name}_loss" in logs}
        return {"loss": logs["loss"] / self.options.get("models", 1)}


class Guide(KerasFit):
    """A Keras model with a train step as Keras' guide for the backend writes it."""

    def build(self) -> None:
        from benchmarks.peers import guide

        self.model = guide.Guide(self.workload)

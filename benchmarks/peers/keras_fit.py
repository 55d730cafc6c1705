"""Programs that train by Keras' `fit`: mlsystem, and train steps as in Keras' guides."""

from collections.abc import Iterable
from typing import Any

import keras

from benchmarks import feeds
from benchmarks.networks.layers import describe
from benchmarks.program import Program

COMPILED = ("jit_compile", "run_eagerly", "steps_per_execution")


class Steps(keras.callbacks.Callback):
    """Tells the clock of a segment of each step, where drawing a batch does not."""

    def __init__(self, segment: feeds.Segment) -> None:
        super().__init__()
        self.on_train_batch_begin = lambda step, logs=None: segment.before(step)


class KerasFit(Program):
    """Any Keras model whose `fit` is given the batches."""

    model: Any

    def batches(self) -> list[tuple[Any, ...]]:
        if self.workload.bfloat16:
            keras.config.set_dtype_policy("mixed_bfloat16")
        is_torch = self.backend == "torch"
        return feeds.torch_batches(self.given, self.device, False) if is_torch else self.given

    def train(self, segment: Any) -> dict[str, float]:
        callbacks = [Steps(segment)] if self.backend == "tensorflow" else None
        return self.fit(feeds.FOR_KERAS[self.backend](segment), callbacks=callbacks)

    def fit(self, *data: Any, **options: Any) -> dict[str, float]:
        """Calls `fit`; the losses by the names that all programs use."""
        history = self.model.fit(*data, verbose=0, **options).history
        return self.losses({name: float(values[-1]) for name, values in history.items()})

    def losses(self, logs: dict[str, float]) -> dict[str, float]:
        """The losses among the logs."""
        return logs

    def weights(self) -> dict[str, Iterable[Any]]:
        # A model alone is its own network.
        nets = {name: getattr(self.model, name, self.model) for name in describe(self.workload)}
        return {name: net.trainable_weights for name, net in nets.items()}


class MLSystem(KerasFit):
    """The workload in mlsystem, made and compiled with the options of the program."""

    def build(self) -> None:
        from benchmarks.peers.keras_systems import SYSTEMS

        compiled = {name: value for name, value in self.options.items() if name in COMPILED}
        made = {name: value for name, value in self.options.items() if name not in COMPILED}
        self.every = compiled.get("steps_per_execution", 1)
        self.model = SYSTEMS[self.workload.kind](self.workload, **made)
        if compiled:
            self.model.compile(**compiled)

    def losses(self, logs: dict[str, float]) -> dict[str, float]:
        if self.workload.kind in ("gan", "dense_gan", "wgan_gp"):
            return {name: logs[f"{name}_loss"] for name in describe(self.workload)}
        return {"loss": logs["loss"] / self.options.get("models", 1)}


class Guide(KerasFit):
    """A Keras model with a train step as Keras' guide for the backend writes it."""

    def build(self) -> None:
        from benchmarks.peers import guide

        self.model = guide.Guide(self.workload)

"""Programs on JAX that get all data as arrays: `fit`, and a scan of the raw step as a limit."""

import time
from typing import Any

import jax
import keras
import numpy as np

from benchmarks.peers.keras_fit import MLSystem
from benchmarks.peers.raw_jax import RawJax, State
from benchmarks.program import Segment

EPOCHS = 3  # of a segment; the first is not timed


def arrays(segment: Segment, count: int) -> tuple[Any, ...]:
    """The first batches of a segment, stacked."""
    given = [segment.batches[i % len(segment.batches)] for i in range(count)]
    return tuple(np.stack(parts) for parts in zip(*given, strict=True))


class Arrays(MLSystem):
    """`fit` on arrays, over whole epochs, with all that happens between two epochs."""

    def build(self) -> None:
        super().build()
        self.every = 128  # batches in the first call, which then compiles what later calls need

    def train(self, segment: Any) -> dict[str, float]:
        epochs = EPOCHS if len(segment) > self.every else 1
        count = len(segment) // epochs
        data = [part.reshape(-1, *part.shape[2:]) for part in arrays(segment, count)]
        ends: list[float] = []

        def note(epoch: int, logs: Any) -> None:
            segment.wait()
            ends.append(time.perf_counter())

        callbacks = [keras.callbacks.LambdaCallback(on_epoch_end=note)]
        given = {"batch_size": self.workload.batch, "epochs": epochs, "callbacks": callbacks}
        losses = self.fit(*data, **given)
        if epochs > 1:
            segment.each = (ends[-1] - ends[0]) / (epochs - 1) / count
        return losses


class Scan(RawJax):
    """The raw step in one scan over batches that are on the device already."""

    def build(self) -> None:
        super().build()
        self.scanned = jax.jit(self.scan, donate_argnums=0)

    def scan(self, state: State, batches: Any) -> State:
        """Run all steps."""
        return jax.lax.scan(lambda state, batch: (self.step(state, batch), None), state, batches)[0]

    def train(self, segment: Any) -> dict[str, float]:
        self.state["totals"] = jax.tree.map(jax.numpy.zeros_like, self.state["totals"])
        batches = jax.device_put(arrays(segment, len(segment)))
        segment.wait()
        start = time.perf_counter()
        self.state = self.scanned(self.state, batches)
        segment.wait()
        segment.each = (time.perf_counter() - start) / len(segment)
        return {name: float(v) / len(segment) for name, v in self.state["totals"].items()}

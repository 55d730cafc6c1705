"""What a program is to the worker that runs it, and how batches reach it.

They reach all programs of a backend in the same way. PyTorch gets a `DataLoader` over batches in
memory, JAX a generator of NumPy batches, TensorFlow a `tf.data.Dataset`. The first two tell the
clock of each batch that is drawn. TensorFlow draws ahead: there a callback tells it of each step.
"""

import math
import time
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np

from benchmarks.workloads import Workload

Batch = tuple[Any, ...]


@dataclass
class Program:
    """Trains one workload in one way, segment by segment.

    A subclass has `build`, which makes networks and optimizers, and `train`, which trains on the
    batches of a segment until all is done, and returns the mean losses by name.
    """

    workload: Workload  # what it trains
    given: list[Batch]  # the data, each batch a tuple of NumPy arrays
    backend: str  # torch, jax or tensorflow
    device: str  # cpu or gpu
    options: dict[str, Any]  # what sets this program apart from others of its kind

    every = 1  # number of steps that one execution takes together

    def batches(self) -> list[Batch]:
        """The data as this program takes it; called once, before anything is timed."""
        return self.given

    def weights(self) -> dict[str, Iterable[Any]]:
        """The trained weights of each network."""
        raise NotImplementedError

    def parameters(self) -> dict[str, int]:
        """The number of trained weights of each network."""
        return {n: sum(math.prod(w.shape) for w in own) for n, own in self.weights().items()}

    def operations(self, segment: Any) -> float:
        """Floating-point operations of training on a segment; by default what PyTorch counts."""
        from torch.utils.flop_counter import FlopCounterMode

        with FlopCounterMode(display=False) as counter:
            self.train(segment)
        return float(counter.get_total_flops())


class Segment:
    """The batches of one segment, as a sequence that a `DataLoader` can draw from, and its clock.

    The time is noted before two of its steps, both with all work before them done. What `fit` does
    before its first steps and after its last lies outside the two. `start` is the number of steps
    before the segment, and `every` that of steps which one execution takes together.
    """

    def __init__(self, batches: list[Batch], steps: int, start: int, every: int, wait: Any) -> None:
        self.batches, self.steps, self.start, self.wait = batches, steps, start, wait
        skipped = min(16, max(1, steps // 4))
        self.first = -(-skipped // every) * every
        self.last = (steps - 1) // every * every
        self.times: dict[int, float] = {}
        self.each: float | None = None  # seconds per step, of a program that measures it itself

    def __len__(self) -> int:
        return self.steps

    def __getitem__(self, step: int) -> Batch:
        self.before(step)
        return self.batches[(self.start + step) % len(self.batches)]

    def __iter__(self) -> Iterator[Batch]:
        return (self[step] for step in range(self.steps))

    def before(self, step: int) -> None:
        """Called before each step, counted from 0. A peek at the data may repeat the first ones."""
        if step in (self.first, self.last):
            self.wait()
            self.times[step] = time.perf_counter()

    def seconds(self) -> float | None:
        """Seconds per step in between; None for a segment that is too short."""
        if self.each is not None or self.first >= self.last:
            return self.each
        return (self.times[self.last] - self.times[self.first]) / (self.last - self.first)


def torch_batches(batches: list[Batch], device: str, channels_first: bool) -> list[Batch]:
    """The batches as tensors, which a GPU can fetch from where they are."""
    import torch

    def tensor(array: np.ndarray) -> Any:
        if channels_first and array.ndim == 4:
            array = array.transpose(0, 3, 1, 2)
        found = torch.from_numpy(np.ascontiguousarray(array))
        return found.pin_memory() if device == "gpu" else found

    return [tuple(tensor(array) for array in batch) for batch in batches]


def torch_loader(segment: Segment) -> Any:
    """A `DataLoader` over the batches of a segment."""
    from torch.utils.data import DataLoader

    return DataLoader(segment, batch_size=None)


def dataset(segment: Segment) -> Any:
    """A `tf.data.Dataset` of the batches of a segment."""
    import tensorflow as tf

    stacked = tuple(np.stack(arrays) for arrays in zip(*segment.batches, strict=True))
    found = tf.data.Dataset.from_tensor_slices(stacked).repeat()
    found = found.skip(segment.start % len(segment.batches)).take(len(segment))
    return found.prefetch(tf.data.AUTOTUNE)


FOR_KERAS = {"torch": torch_loader, "jax": iter, "tensorflow": dataset}  # what `fit` gets


def waiter(backend: str, device: str) -> Callable[[], object]:
    """A function that waits for all that was started."""
    if backend == "jax":
        import jax

        return lambda: jax.block_until_ready(jax.live_arrays())
    if backend == "torch" and device == "gpu":
        import torch

        return torch.cuda.synchronize
    return lambda: None  # done when the call returns

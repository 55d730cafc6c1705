"""What a program is to the worker that runs it."""

import math
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

from benchmarks.workloads import Workload


@dataclass
class Program:
    """Trains one workload in one way, segment by segment.

    A subclass has `build`, which makes networks and optimizers, and `train`, which trains on the
    batches of a segment until all is done, and returns the mean losses by name.
    """

    workload: Workload  # what it trains
    given: list[tuple[Any, ...]]  # the data, each batch a tuple of NumPy arrays
    backend: str  # torch, jax or tensorflow
    device: str  # cpu or gpu
    options: dict[str, Any]  # what sets this program apart from others of its kind

    every = 1  # number of steps that one execution takes together

    def batches(self) -> list[tuple[Any, ...]]:
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

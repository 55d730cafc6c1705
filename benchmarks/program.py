"""What a program is to the worker that runs it."""

from dataclasses import dataclass, field
from typing import Any

from benchmarks.workloads import Workload


@dataclass(frozen=True)
class Setting:
    """What a program is made from.

    Attributes:
        workload: what it trains.
        batches: the data, each batch a tuple of NumPy arrays.
        backend: `torch`, `jax` or `tensorflow`.
        device: `cpu` or `gpu`.
        options: what sets this program apart from others of its kind.
    """

    workload: Workload
    batches: list[tuple[Any, ...]]
    backend: str
    device: str
    options: dict[str, Any] = field(default_factory=dict)


class Program:
    """Trains one workload in one way, segment by segment.

    Attributes:
        every: number of steps that one execution takes together.
    """

    every = 1

    def __init__(self, setting: Setting) -> None:
        self.setting, self.workload = setting, setting.workload

    def batches(self) -> list[tuple[Any, ...]]:
        """The data as this program takes it; called once, before anything is timed."""
        return self.setting.batches

    def build(self) -> None:
        """Makes networks and optimizers."""
        raise NotImplementedError

    def train(self, segment: Any) -> dict[str, float]:
        """Trains on the batches of a segment, until all is done; the mean losses by name."""
        raise NotImplementedError

    def parameters(self) -> dict[str, int]:
        """The number of trained weights of each network."""
        raise NotImplementedError

    def operations(self, segment: Any) -> float | None:
        """Floating-point operations of training on a segment; None where they are not counted."""
        return None

"""`Replicas`: the replicas that train one model together, as a step sees them."""

import contextlib
import math
from collections.abc import Callable, Iterator
from typing import Any

from mlsystem._learner import running

FAR = 0x1E3779B1  # a seed of one process is so far from those of the others
BUCKET = 2**23  # numbers that are averaged at once


class Replicas:
    """One replica alone. A backend's `distribution.py` has the subclass for several of them.

    Attributes:
        index: the number of this process.
        count: the number of processes.
        size: the number of parts that each batch is divided into.
        shard: the number of the rows that this process reads.
        shards: the number of processes that read different rows.
        reduces: whether a step sees one part of a batch, so that it must ask for sums. Otherwise
            the backend computes with the whole batch.
        parts: the numbers of rows of all replicas, where the present batch does not divide.
        averages_statistics: whether batch norm uses the rows of one replica.
        is_alone: whether nothing is exchanged at present.
    """

    index, count, size, reduces = 0, 1, 1, False
    shard, shards = 0, 1
    averages_statistics = is_alone = False
    parts: tuple[int, ...] | None = None

    # In a step -------------------------------------------------------------------------------

    def total(self, x: Any) -> Any:
        """Return the sum of a tensor over the replicas. It is a constant for gradients."""
        return x

    def gather(self, x: Any) -> Any:
        """Return the rows of all replicas. It can be differentiated, also twice."""
        return x

    def mean_later(self, gradients: list[Any], again: bool = False) -> Callable[[], list[Any]]:
        """Start to average gradients, and return the function that waits for the averages.

        Args:
            gradients: the gradients of one backward pass. None stands for no gradient.
            again: whether the averages will be differentiated.
        """
        return lambda: gradients

    def noise(self, system: Any) -> contextlib.AbstractContextManager[Any]:
        """Return the context of a step, in which processes draw other numbers from one state."""
        return contextlib.nullcontext()

    # Between steps ---------------------------------------------------------------------------

    def place(self, batch: Any, whole: bool) -> Any:
        """Put rows where a step finds them.

        Args:
            batch: the rows of this process, or all rows.
            whole: whether it holds all rows, as it does where they do not divide.
        """
        return batch

    def collect(self, value: Any) -> list[Any]:
        """Return the Python objects that all processes give, in the order of the processes."""
        return [value]

    def any(self, value: bool) -> bool:
        """Return whether a value is true on one of the processes. It is asked after each batch."""
        return value

    def vary_noise(self) -> None:
        """Let generators of devices, which no seed variable sets, differ between processes."""

    def share(self, variables: list[Any]) -> None:
        """Give variables the values that they have on the first process."""

    @contextlib.contextmanager
    def alone(self) -> Iterator[None]:
        """Return the context in which nothing is exchanged, such as a rehearsal.

        Shapes are as with the other replicas.
        """
        before, self.is_alone = self.is_alone, True
        try:
            yield
        finally:
            self.is_alone = before


def buckets(gradients: list[Any]) -> list[list[int]]:
    """List the positions of gradients that are averaged together: of one dtype, up to a size."""
    found: dict[Any, list[list[int]]] = {}
    sizes: dict[Any, int] = {}
    for i, gradient in enumerate(gradients):
        if gradient is None:
            continue
        kind, size = gradient.dtype, math.prod(gradient.shape)
        if kind not in found or sizes[kind] + size > BUCKET:
            found.setdefault(kind, []).append([])
            sizes[kind] = 0
        found[kind][-1].append(i)
        sizes[kind] += size
    return [bucket for buckets in found.values() for bucket in buckets]


def fold_noise(random: Any, index: int) -> None:
    """Have each process draw other numbers from equal seeds, in a step.

    Args:
        random: Keras' module of random operations on a backend.
        index: the number of this process.
    """
    draw = random.draw_seed

    def folded(seed: Any) -> Any:
        found = draw(seed)
        return found if getattr(running, "step", None) is None else found + index * FAR

    random.draw_seed = folded

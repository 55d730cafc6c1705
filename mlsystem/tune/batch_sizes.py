"""`batch_size`: the batch sizes that fit into memory, and the samples per second of each."""

from collections.abc import Mapping
from typing import Any

import keras
import numpy as np

from mlsystem._checks import is_count
from mlsystem._learner import Learner
from mlsystem.data.batch import array, mapped
from mlsystem.diagnostics.gradient_report import table
from mlsystem.engine import engine
from mlsystem.fit import data_arguments
from mlsystem.fit.fast_run import Batches
from mlsystem.tune import arguments, host_memory, snapshot
from mlsystem.tune.timed_steps import TimedSteps, TooLarge

_WHAT = "ml.tune.batch_size"


class BatchSizes(Mapping[int, float]):
    """The samples per second of each batch size that fits into memory: `sizes[64]`.

    Print it for a table.

    Attributes:
        largest: the largest batch size that was measured.
        fastest: the batch size with the most samples per second.
        end: why no larger size was measured, in a sentence.
    """

    def __init__(self, system: Any, speeds: Mapping[int, float], end: str) -> None:
        self._name, self._speeds, self.end = system.name, dict(speeds), end
        self.largest = max(self._speeds)
        self.fastest = max(self._speeds, key=lambda size: self._speeds[size])

    def __getitem__(self, size: int) -> float:
        if size not in self._speeds:
            known = ", ".join(map(str, self._speeds))
            raise KeyError(f"The batch size {size!r} was not measured. Those that were: {known}.")
        return self._speeds[size]

    def __iter__(self) -> Any:
        return iter(self._speeds)

    def __len__(self) -> int:
        return len(self._speeds)

    def __str__(self) -> str:
        rows = [["batch size", "samples/s"]]
        rows += [
            [str(size), f"{speed:,.0f}{' fastest' if size == self.fastest else ''}"]
            for size, speed in self.items()
        ]
        return "\n".join([f"Training steps of '{self._name}'", *table(rows), self.end])

    __repr__ = __str__


def batch_size(
    system: Any, data: Any = None, start: int = 8, limit: int = 4096, steps: int = 5
) -> BatchSizes:
    """Measure training steps of doubled batch sizes, until memory runs out.

    ```python
    sizes = ml.tune.batch_size(gan, images, limit=64)
    print(sizes)
    sizes.largest, sizes.fastest, sizes[64]
    ```

    It repeats the rows of a first batch, so the data may be few. Nothing is trained: weights,
    optimizers, counters, random generators and logs are put back, bit for bit.

    A size is too large in these cases:

    - The step fails because memory ran out. The process and the model stay usable.
    - On JAX, the compiled step needs more memory than there is. It is not run then.
    - On a CPU, the last size took more than half of the memory that the host has left. There, a
      process that takes too much is killed. Windows is not asked.

    A larger batch usually needs another learning rate: call `ml.tune.learning_rate` afterwards.

    Args:
        system: an `MLModel` or `MLSystem`. It is set up first if necessary.
        data: training data as in `fit`, or a tuple `(x, y)`. By default the data of the system. In
            `ml.Streams`, the batches of all streams grow together.
        start: the first batch size.
        limit: the largest batch size.
        steps: number of steps that are timed for each size, after a first one that compiles.

    Returns:
        The samples per second by batch size. In streams, the size is that of the first stream.

    Raises:
        TypeError: `system` is no model of this library.
        ValueError: an argument makes no sense, or memory is too small for the first size.
    """
    learner = arguments.learner_of(system, _WHAT)
    _check(start, limit, steps)
    given, part = arguments.of_fit(learner, data, None, _WHAT)
    before = snapshot.take(system, given, part)
    first = _first(learner, given["x"])
    speeds: dict[int, float] = {}
    end = f"The limit is {limit}."
    size = start
    host = _Host()
    while size <= limit:
        with before.put_back():
            speed, why = _measured(learner, _resized(first, size), size, steps)
        if speed is None:
            end = f"{size} is too large: {why}"
            break
        speeds[size] = speed
        size *= 2
        if size <= limit and not host.has_room():
            end = f"{size} was not tried: it might fill the memory of the host."
            break
    if not speeds:
        raise ValueError(f"{_WHAT} got start={start}. {end} Give a smaller start.")
    return BatchSizes(system, speeds, end)


def _check(start: Any, limit: Any, steps: Any) -> None:
    for name, value in (("start", start), ("limit", limit), ("steps", steps)):
        if not is_count(value):
            raise ValueError(f"{_WHAT} got {name}={value!r}. Give a whole number from 1.")
    if start > limit:
        raise ValueError(f"{_WHAT} got start={start} above limit={limit}.")


def _first(learner: Learner, data: Any) -> Any:
    """Return the first batch as arrays. Of arrays, it is all rows."""
    return mapped(array, data_arguments.examples(learner, data)[0])


def _resized(batch: Any, size: int) -> Any:
    """Return a batch of this size, by repeating rows."""
    leaves = [leaf for leaf in keras.tree.flatten(batch) if np.ndim(leaf)]
    rows = len(leaves[0])

    def resized(leaf: Any) -> Any:
        if not np.ndim(leaf):
            return leaf
        count = max(1, len(leaf) * size // rows)
        return np.take(leaf, np.arange(count) % len(leaf), axis=0)

    return keras.tree.map_structure(resized, batch)


def _measured(learner: Learner, batch: Any, size: int, steps: int) -> tuple[float | None, str]:
    """Return the samples per second of a batch, or None and why it is too large."""
    timed = TimedSteps(batch, engine.device_memory() or host_memory.free())
    together = learner.model.steps_per_execution
    batches = Batches([batch] * together * (steps + 1))
    try:
        learner.model.fit(batches, verbose=0, callbacks=[timed])
    except TooLarge as error:
        return None, str(error)
    except Exception as error:
        if not engine.is_out_of_memory(error):
            raise
        return None, "memory ran out."
    return size * together / float(np.median(timed.seconds)), ""


class _Host:
    """Guesses whether the next size fits into the memory of the host.

    There, a process that takes too much is killed, without an error.
    """

    def __init__(self) -> None:
        self.before = host_memory.peak()

    def has_room(self) -> bool:
        """Return whether a step may take twice as much more as the last one took."""
        peak, free = host_memory.peak(), host_memory.free()
        if self.before is None or peak is None or free is None or engine.device_memory():
            return True
        more, self.before = peak - self.before, peak
        return 2 * more < free

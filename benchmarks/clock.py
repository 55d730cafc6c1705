"""The time of a segment, taken between two of its steps, both with all work before them done."""

import time
from collections.abc import Callable


class Clock:
    """Told of each step before it starts, it notes the time at two of them.

    What `fit` does before its first steps and after its last lies outside the two.

    Args:
        steps: number of steps in the segment.
        every: number of steps that one execution takes together.
        wait: waits until all that was started is done.
    """

    def __init__(self, steps: int, every: int = 1, wait: Callable[[], object] = lambda: None):
        skipped = min(16, max(1, steps // 4))
        self.first = -(-skipped // every) * every
        self.last = (steps - 1) // every * every
        self.wait = wait
        self.times: dict[int, float] = {}

    def before(self, step: int) -> None:
        """Called before each step, counted from 0. A peek at the data may repeat the first ones."""
        if step in (self.first, self.last):
            self.wait()
            self.times[step] = time.perf_counter()

    def seconds(self) -> float | None:
        """Seconds per step in between; None for a segment that is too short."""
        if self.first >= self.last:
            return None
        return (self.times[self.last] - self.times[self.first]) / (self.last - self.first)

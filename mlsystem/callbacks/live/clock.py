"""`Clock`: decides when the view is updated, so that updates take little of the time."""

import time

SHARE = 0.02  # of the time, at most, that updates may take


class Clock:
    """The time of the next update.

    Args:
        every: seconds between updates, at least.
    """

    def __init__(self, every: float) -> None:
        self.every = every
        self.due = 0.0  # the first batch shows that training runs
        self.is_first = True

    def is_due(self) -> bool:
        """Return whether it is time for an update."""
        return time.perf_counter() >= self.due

    def updated(self, seconds: float) -> None:
        """Set the time of the next update, given what this one took.

        What the first one compiles and imports does not count.
        """
        wait = self.every if self.is_first else max(self.every, seconds / SHARE)
        self.is_first = False
        self.due = time.perf_counter() + wait

"""`GroupGrowth`: how many steps are worth it in one group, found while groups run."""

from collections.abc import Callable

LONG = 0.02  # seconds from which on a group of steps is long enough


class GroupGrowth:
    """The most steps of a group. They grow while groups are short.

    Attributes:
        most: the largest number of steps that are worth it in one group.
        is_new: whether the next group runs a new program. Its time holds the compilation.
    """

    def __init__(self) -> None:
        self.most = 1
        self.is_new = True

    def see(self, count: int, seconds: Callable[[], float]) -> None:
        """Let the next group be longer, if one of the longest so far was short.

        Args:
            count: the number of steps of the group.
            seconds: returns how long the group took. It is called only if that matters, since it
                may have to wait for the group.
        """
        if count == self.most and not self.is_new:
            self.most *= 1 + (seconds() < LONG)
        self.is_new = False

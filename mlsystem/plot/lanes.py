"""Lanes for vertical lines, and places for boxes in a column. Plain numbers."""

from collections.abc import Sequence
from dataclasses import dataclass

Span = tuple[float, float]


def lanes(spans: Sequence[Span], apart: float = 8.0) -> list[int]:
    """Return a lane for each span, so that spans in one lane do not touch. Short spans come first.

    >>> lanes([(0, 100), (10, 20), (40, 60)])
    [1, 0, 0]
    """
    taken: list[list[Span]] = []
    found = [0] * len(spans)
    for i in sorted(range(len(spans)), key=lambda i: spans[i][1] - spans[i][0]):
        low, high = spans[i]
        free = [all(high + apart < a or b + apart < low for a, b in lane) for lane in taken]
        found[i] = free.index(True) if True in free else len(taken)
        if found[i] == len(taken):
            taken.append([])
        taken[found[i]].append(spans[i])
    return found


def clear_of(wanted: float, taken: Sequence[float], apart: float = 6.0) -> float:
    """Return the height for a line nearest to a wanted one that lies apart from other lines.

    >>> clear_of(100, [99, 120])
    105.0
    """
    edges = [y + side * apart for y in taken for side in (-1.0, 1.0)]
    free = [y for y in [wanted, *edges] if all(abs(y - t) > apart - 0.01 for t in taken)]
    return min(free, key=lambda y: abs(y - wanted))


@dataclass
class _Block:
    """Boxes that touch: the upper edge, the heights, and how much their place matters."""

    start: float
    heights: list[float]
    weight: float

    def end(self, gap: float) -> float:
        """Return the least upper edge of the next box."""
        return self.start + sum(self.heights) + gap * len(self.heights)

    def joined(self, other: "_Block", gap: float, top: float) -> "_Block":
        """Return both as one block, at the weighted mean of the places that they want."""
        weight = self.weight + other.weight
        wanted = other.start - (self.end(gap) - self.start)
        start = (self.start * self.weight + wanted * other.weight) / weight
        return _Block(max(top, start), [*self.heights, *other.heights], weight)

    def edges(self, gap: float) -> list[float]:
        """Return the upper edges of the boxes."""
        return [self.start + sum(self.heights[:i]) + gap * i for i in range(len(self.heights))]


def spread(
    wanted: Sequence[float],
    heights: Sequence[float],
    weights: Sequence[float],
    gap: float,
    top: float,
) -> list[float]:
    """Return the upper edges of boxes in a column, near the wanted middles, without overlaps.

    The middles have to be in rising order. Boxes that would overlap move apart, those with a small
    weight more.

    >>> spread([50, 50], [20, 20], [1, 1], gap=10, top=0)
    [25.0, 55.0]
    """
    blocks: list[_Block] = []
    for middle, height, weight in zip(wanted, heights, weights, strict=True):
        block = _Block(max(top, middle - height / 2), [height], weight)
        while blocks and blocks[-1].end(gap) > block.start:
            block = blocks.pop().joined(block, gap, top)
        blocks.append(block)
    return [edge for block in blocks for edge in block.edges(gap)]

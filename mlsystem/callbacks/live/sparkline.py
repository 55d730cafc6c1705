"""A curve as a few characters of text."""

import itertools
import math
from collections.abc import Sequence

_BLOCKS, _ASCII = "▁▂▃▄▅▆▇█", "_.-~=+*#"


def sparkline(values: Sequence[float], width: int = 8, ascii_only: bool = False) -> str:
    """Return a curve as text, from its lowest to its highest value.

    Args:
        values: the values in order. Values that are not finite are left out.
        width: the most characters. Of more values, each character shows the mean of some.
        ascii_only: whether the output cannot show blocks.

    >>> sparkline([1.0, 2.0, 3.0, 8.0])
    '▁▂▃█'
    """
    blocks = _ASCII if ascii_only else _BLOCKS
    means = _means([value for value in values if math.isfinite(value)], width)
    low, high = min(means, default=0.0), max(means, default=0.0)
    scale = (len(blocks) - 1) / (high - low) if high > low else 0.0
    return "".join(blocks[round((mean - low) * scale)] for mean in means)


def _means(values: Sequence[float], count: int) -> list[float]:
    """Return the means of so many parts of some values, of about equal length."""
    count = min(count, len(values))
    ends = [len(values) * i // count for i in range(count + 1)] if count else []
    parts = [values[a:b] for a, b in itertools.pairwise(ends)]
    return [sum(part) / len(part) for part in parts]

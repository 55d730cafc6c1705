"""Columns of text of equal width, for a terminal or an editor with a font of fixed width."""

import unicodedata
from collections.abc import Sequence


def cells(text: str) -> int:
    """Return how many columns a text takes: two for a wide character, such as a Chinese one.

    >>> cells("critic"), cells("判別器")
    (6, 6)
    """
    return sum(
        0 if unicodedata.combining(c) else 2 if unicodedata.east_asian_width(c) in "WF" else 1
        for c in text
    )


def padded(text: str, width: int) -> str:
    """Return a text with spaces after it, up to a number of columns."""
    return text + " " * (width - cells(text))


def aligned(rows: Sequence[Sequence[str]]) -> list[list[str]]:
    """Return rows with spaces after each text. Columns without a text stay empty.

    >>> aligned([["a", "1"], ["bcd", "2"]])
    [['a  ', '1'], ['bcd', '2']]
    """
    widths = [max(map(cells, column)) for column in zip(*rows, strict=True)]
    return [[padded(text, width) for text, width in zip(row, widths, strict=True)] for row in rows]

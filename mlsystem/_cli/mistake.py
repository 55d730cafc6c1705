"""A mistake on the command line: one sentence, without a traceback."""

from collections.abc import Iterable

from mlsystem._checks import did_you_mean, nearest


class Mistake(Exception):
    """What was found, what was expected, and what is near."""


def near(wrong: str, known: Iterable[str]) -> str:
    """Return a question for the known name that is nearest to a wrong one. Empty if none is."""
    return did_you_mean(nearest(wrong, known))

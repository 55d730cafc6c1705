"""A mistake on the command line: one sentence, without a traceback."""

import difflib
from collections.abc import Iterable


class Mistake(Exception):
    """What was found, what was expected, and what is near."""


def near(wrong: str, known: Iterable[str]) -> str:
    """Return a question for the known name that is nearest to a wrong one. Empty if none is."""
    found = difflib.get_close_matches(wrong, list(known), 1, 0.6)
    return f" Did you mean '{found[0]}'?" if found else ""

"""Add the name of the user's function to an error that is raised inside it."""

import contextlib
from collections.abc import Iterator, Mapping
from typing import Any

from mlsystem._tensors import describe

_PLACE = "The error comes from: "


@contextlib.contextmanager
def named_in_errors(what: str, **structures: Any) -> Iterator[None]:
    """Add the place to an error raised inside. The error for a key also lists the existing keys."""
    try:
        yield
    except Exception as error:
        add_place(error, what, **structures)
        raise


def add_place(error: Exception, what: str, **structures: Any) -> None:
    """Add the place to an error. Raise another error in place of one for a missing key."""
    if isinstance(error, KeyError) and " " not in str(error):  # Keras raises whole sentences
        found = "; ".join(f"{name} {_keys(held)}" for name, held in structures.items())
        raise ValueError(
            f"{what} asks for the key {error}, which does not exist: {found}."
        ) from error
    if not any(note.startswith(_PLACE) for note in getattr(error, "__notes__", ())):
        found = ", ".join(f"{n} is {describe(held)}" for n, held in structures.items())
        error.add_note(f"{_PLACE}{what}." + (f" There {found}." if found else ""))


def _keys(held: Any) -> str:
    if isinstance(held, Mapping):
        return f"has {', '.join(map(repr, held)) or 'none'}"
    return f"is {describe(held)}"

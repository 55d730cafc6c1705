"""Check a positive whole number, and the path of a folder."""

import os
from pathlib import Path
from typing import Any


def is_count(value: Any) -> bool:
    """Return whether a value is a whole number from 1."""
    return isinstance(value, int) and not isinstance(value, bool) and value > 0


def as_folder(given: Any, what: str) -> Path:
    """Return the path of the folder for a callback. Raise an error if it is not a folder."""
    if not isinstance(given, (str, os.PathLike)):
        raise TypeError(f"{what} got the folder {given!r}; give its path.")
    folder = Path(given).expanduser()
    if folder.exists() and not folder.is_dir():
        raise ValueError(f"{what} got '{given}', which is a file; give a folder.")
    return folder

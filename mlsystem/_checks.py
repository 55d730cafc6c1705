"""Check a positive whole number, and the path of a folder."""

import os
from pathlib import Path
from typing import Any


def is_count(value: Any) -> bool:
    """Whether a value is a whole number from 1."""
    return isinstance(value, int) and not isinstance(value, bool) and value > 0


def as_folder(given: Any, what: str) -> Path:
    """The path of a folder that a callback is to write to."""
    if not isinstance(given, (str, os.PathLike)):
        raise TypeError(f"{what} got the folder {given!r}; give its path.")
    folder = Path(given).expanduser()
    if folder.exists() and not folder.is_dir():
        raise ValueError(f"{what} got '{given}', which is a file; give a folder.")
    return folder

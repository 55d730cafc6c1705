"""Small checks: a positive whole number, a folder, the nearest name, the version of a package."""

import difflib
import importlib.metadata
import os
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import numpy as np


def is_count(value: Any) -> bool:
    """Return whether a value is a whole number from 1."""
    is_whole = isinstance(value, (int, np.integer)) and not isinstance(value, bool)
    return is_whole and bool(value > 0)


def as_folder(given: Any, what: str) -> Path:
    """Return the path of the folder for a callback. Raise an error if it is not a folder."""
    if not isinstance(given, (str, os.PathLike)):
        raise TypeError(f"{what} got the folder {given!r}; give its path.")
    if not os.fspath(given):
        raise ValueError(f"{what} got '' as its folder; give its path, or '.' for the present one.")
    folder = Path(given).expanduser()
    if folder.exists() and not folder.is_dir():
        raise ValueError(f"{what} got '{given}', which is a file; give a folder.")
    return folder


def nearest(wrong: str, known: Iterable[str], cutoff: float = 0.6) -> str | None:
    """Return the known name that is nearest to a wrong one, or None if none is near."""
    return next(iter(difflib.get_close_matches(wrong, list(known), 1, cutoff)), None)


def did_you_mean(near: str | None) -> str:
    """Return a question for a near name, to follow a sentence. Empty if there is none."""
    return f" Did you mean '{near}'?" if near else ""


def version_of(package: str) -> str | None:
    """Return the version of a package, or None if it is not installed, or runs from its source."""
    try:
        return importlib.metadata.version(package)
    except importlib.metadata.PackageNotFoundError:
        return None

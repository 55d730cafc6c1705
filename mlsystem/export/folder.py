"""A folder that appears whole or not at all: it is written beside its place, and then renamed."""

import contextlib
import os
import shutil
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from mlsystem._checks import as_folder
from mlsystem.export import manifest


def checked(given: Any) -> Path:
    """Return the path of a folder that an export may write.

    Raises:
        ValueError: it is a file, or in a file, or a folder with other files in it.
    """
    folder = as_folder(given, "export").absolute()
    place = next(parent for parent in folder.parents if parent.exists())
    if not place.is_dir():
        raise ValueError(f"export got '{given}', but '{place}' is a file; give another folder.")
    if folder.exists() and any(folder.iterdir()) and not manifest.is_in(folder):
        raise ValueError(
            f"export got '{given}', a folder that holds other files. Give a new folder, or one of "
            "an earlier export, which is replaced."
        )
    return folder


@contextlib.contextmanager
def replacing(folder: Path) -> Iterator[Path]:
    """Yield an empty folder that takes the place of `folder` at the end, unless an error occurs."""
    place = next(parent for parent in folder.parents if parent.exists())
    with tempfile.TemporaryDirectory(prefix=f".{folder.name}-", dir=place) as aside:
        new, old = Path(aside, "new"), Path(aside, "old")
        new.mkdir()
        yield new
        folder.parent.mkdir(parents=True, exist_ok=True)
        if folder.exists():
            os.rename(folder, old)
        try:
            shutil.move(new, folder)
        except BaseException:
            if old.exists():
                os.rename(old, folder)
            raise

"""A trial run: a few batches through all that a `fit` does, which leaves no files behind."""

import contextlib
import copy
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import keras
from keras import callbacks as of_keras

from mlsystem.callbacks.checkpoint import Checkpoint
from mlsystem.callbacks.for_model import For
from mlsystem.callbacks.profile import Profile

# Where callbacks write, by the attribute that says so.
_WRITE: dict[type, str] = {
    Checkpoint: "folder",
    of_keras.BackupAndRestore: "backup_dir",
    of_keras.CSVLogger: "filename",
    of_keras.ModelCheckpoint: "filepath",
    of_keras.TensorBoard: "log_dir",
}
# Orbax opens its folder when it is made; and nothing is to be learned from one batch's profile.
_LEFT_OUT = (Profile, getattr(of_keras, "OrbaxCheckpoint", Profile))


@contextlib.contextmanager
def shortened(given: dict[str, Any]) -> Iterator[None]:
    """Changes the arguments of a `fit` to one epoch, whose files go to a folder that is removed.

    (How many batches that has is said to Keras' iterators, which know how many there are.)
    """
    with tempfile.TemporaryDirectory(ignore_cleanup_errors=True) as folder:
        callbacks = [c for c in keras.tree.flatten(given["callbacks"] or []) if not _is_left_out(c)]
        given["callbacks"] = [_moved(c, Path(folder) / str(i)) for i, c in enumerate(callbacks)]
        given |= {"epochs": given["initial_epoch"] + 1, "validation_freq": 1}
        yield


def _is_left_out(callback: Any) -> bool:
    return isinstance(callback.callback if isinstance(callback, For) else callback, _LEFT_OUT)


def _moved(callback: Any, folder: Path) -> Any:
    """A callback that writes elsewhere; the same one where it writes nothing."""
    if isinstance(callback, For):
        inner = _moved(callback.callback, folder)
        return callback if inner is callback.callback else For(callback.name, inner)
    for kind, attribute in _WRITE.items():
        if isinstance(callback, kind):
            folder.mkdir()
            return _copy(callback, str(getattr(callback, attribute)), folder)
    return callback


def _copy(callback: Any, path: str, folder: Path) -> Any:
    """A copy in which whatever names the path, or what is in it, is elsewhere."""
    moved = copy.copy(callback)
    for name, value in vars(callback).items():
        if isinstance(value, (str, Path)) and str(value).startswith(path):
            elsewhere = f"{folder / Path(path).name}{str(value).removeprefix(path)}"
            setattr(moved, name, type(value)(elsewhere))
    return moved

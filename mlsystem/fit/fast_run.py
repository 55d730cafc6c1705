"""`fast_run` and `overfit`: train on a few batches."""

import contextlib
import copy
import tempfile
import warnings
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import keras
from keras import callbacks as of_keras

from mlsystem import _keras
from mlsystem.callbacks.checkpoint import Checkpoint
from mlsystem.callbacks.for_model import For
from mlsystem.callbacks.live import Live
from mlsystem.callbacks.profile import Profile
from mlsystem.callbacks.tracking import Log
from mlsystem.data.batch import array, mapped

# The attribute of each callback that holds the path it writes to.
_WRITE: dict[type, str] = {
    Checkpoint: "folder",
    Live: "path",
    of_keras.BackupAndRestore: "backup_dir",
    of_keras.CSVLogger: "filename",
    of_keras.ModelCheckpoint: "filepath",
    of_keras.TensorBoard: "log_dir",
}
# OrbaxCheckpoint opens its folder in its constructor. The profile of one batch shows nothing, and
# trackers keep no trial runs.
_LEFT_OUT = (Log, Profile, getattr(of_keras, "OrbaxCheckpoint", Profile))


@contextlib.contextmanager
def shortened(given: dict[str, Any]) -> Iterator[None]:
    """Change the arguments of a `fit` to one epoch, with files in a folder that is removed.

    `Call.prepare` sets the number of batches on Keras' iterators, which know the full number.
    """
    with tempfile.TemporaryDirectory(ignore_cleanup_errors=True) as folder:
        callbacks = [c for c in keras.tree.flatten(given["callbacks"] or []) if not _is_left_out(c)]
        given["callbacks"] = [_moved(c, Path(folder) / str(i)) for i, c in enumerate(callbacks)]
        given |= {"epochs": given["initial_epoch"] + 1, "validation_freq": 1}
        yield


def _is_left_out(callback: Any) -> bool:
    return isinstance(callback.callback if isinstance(callback, For) else callback, _LEFT_OUT)


def _moved(callback: Any, folder: Path) -> Any:
    """Return a copy of a callback that writes to `folder`. Without files, return the same one."""
    if isinstance(callback, For):
        inner = _moved(callback.callback, folder)
        return callback if inner is callback.callback else For(callback.name, inner)
    for kind, attribute in _WRITE.items():
        if isinstance(callback, kind) and getattr(callback, attribute) is not None:
            folder.mkdir()
            return _copy(callback, str(getattr(callback, attribute)), folder)
    return callback


def _copy(callback: Any, path: str, folder: Path) -> Any:
    """Return a copy of a callback whose attributes replace the path by one in `folder`."""
    moved = copy.copy(callback)
    for name, value in vars(callback).items():
        if isinstance(value, (str, Path)) and str(value).startswith(path):
            elsewhere = f"{folder / Path(path).name}{str(value).removeprefix(path)}"
            setattr(moved, name, type(value)(elsewhere))
    return moved


class Batches(keras.utils.PyDataset):
    """A data set of the same batches in the same order, each time it is read.

    Args:
        batches: the batches of a data set.
    """

    def __init__(self, batches: list[Any]) -> None:
        super().__init__()
        self.batches = batches

    def __len__(self) -> int:
        return len(self.batches)

    def __getitem__(self, index: int) -> Any:
        return self.batches[index]


def keep_first(given: dict[str, Any], count: int) -> None:
    """Change the arguments of a `fit` to train and validate on its first batches."""
    of_data = ("x", "y", "sample_weight", "batch_size", "class_weight")
    first = _keras.first_batches(count, **{name: given[name] for name in of_data})
    batches = [mapped(array, batch) for batch in first]
    if len(batches) < count:
        warnings.warn(
            f"fit got overfit={count}, and the data have {len(batches)} batches: it trains on all.",
            stacklevel=4,
        )
    data = Batches(batches)
    given |= {"x": data, "validation_data": _validation(given, data), "shuffle": False}
    given |= dict.fromkeys([*of_data[1:], "validation_batch_size", "validation_steps"])
    given |= {"validation_split": 0.0, "steps_per_epoch": None}


def _validation(given: dict[str, Any], data: Batches) -> Any:
    """Return the same batches for each validation set."""
    if isinstance(sets := given["validation_data"], dict):
        return dict.fromkeys(sets, data)
    return data if sets is not None or given["validation_split"] else None

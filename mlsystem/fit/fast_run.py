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
from mlsystem.callbacks.profile import Profile
from mlsystem.data.batch import array, mapped

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


class Batches(keras.utils.PyDataset):
    """Batches that are the same, and in the same order, each time they are read.

    Args:
        batches: what a data set yields.
    """

    def __init__(self, batches: list[Any]) -> None:
        super().__init__()
        self.batches = batches

    def __len__(self) -> int:
        return len(self.batches)

    def __getitem__(self, index: int) -> Any:
        return self.batches[index]


def keep_first(given: dict[str, Any], count: int) -> None:
    """Changes the arguments of a `fit` so that it trains and validates on its first batches."""
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
    """The same batches in the place of each validation set."""
    if isinstance(sets := given["validation_data"], dict):
        return dict.fromkeys(sets, data)
    return data if sets is not None or given["validation_split"] else None

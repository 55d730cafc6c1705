"""Read and write one checkpoint: a file of weights with one extra group."""

import contextlib
import io
import json
import os
import warnings
from pathlib import Path
from typing import Any

import h5py
import numpy as np

from mlsystem import _keras
from mlsystem.saving import checksum, folder_lock, packing, shards
from mlsystem.saving.shards import Shards

_GROUP = "_checkpoint"
ENDING = ".weights.h5"


def content(model: Any, extras: dict[str, Any], sharded: Shards) -> memoryview:
    """Return the bytes of a file without its checksum: a copy of the current state in memory.

    HDF5 does not write to the disk. On a full disk it may end the process when it closes a file.

    Args:
        model: the model. Its weights, optimizers and seeds are saved as by `save_weights`.
        extras: structure of numbers, strings and arrays to save beside them.
        sharded: variables that are saved elsewhere.
    """
    buffer, arrays = io.BytesIO(), list[Any]()
    text = json.dumps(packing.pack(extras, arrays)).encode()
    _keras.save_state(model, buffer, sharded.variables.values())
    with h5py.File(buffer, "r+") as file:
        group = file.create_group(_GROUP)
        for name, array in {"json": np.frombuffer(text, "uint8"), **_numbered(arrays)}.items():
            group[name] = array
        sharded.note(file)
        checksum.announce(file)
    return buffer.getbuffer()


def write(path: Path, content: memoryview, end: bytes) -> None:
    """Write a file completely or not at all.

    Args:
        path: the file. An old file is replaced once the new file is complete and on the disk.
        content: the bytes of the file without its checksum.
        end: the checksum of the content, to write last.
    """
    unfinished = path.with_name(f".{os.getpid()}.{path.name}")
    try:
        with unfinished.open("wb") as file:
            file.write(content)
            file.write(end)
            file.flush()
            os.fsync(file.fileno())
        os.replace(unfinished, path)
    except BaseException:
        with contextlib.suppress(OSError):
            unfinished.unlink()
        raise
    _flush(path.parent)


def _numbered(arrays: list[Any]) -> dict[str, Any]:
    return {str(i): array for i, array in enumerate(arrays)}


def _flush(path: Path) -> None:
    """Wait until the names in a folder are on the disk."""
    with contextlib.suppress(PermissionError):  # Windows cannot open folders and does not need to
        descriptor = os.open(path, os.O_RDONLY)
        try:
            os.fsync(descriptor)
        finally:
            os.close(descriptor)


def read(path: Path) -> dict[str, Any]:
    """Return the extras in a file.

    Raises:
        FileNotFoundError: if there is no such file.
        ValueError: if the file is damaged, or is not a checkpoint.
    """
    try:
        verified = checksum.verify(path)
        with h5py.File(path, "r") as file:
            group = _keras.read_group(file, _GROUP)
        text = bytes(group.pop("json")).decode()
        found = packing.unpack(json.loads(text), {int(i): array for i, array in group.items()})
    except FileNotFoundError:
        raise FileNotFoundError(
            f"There is no checkpoint '{path}'. In its folder are {_others(path)}."
        ) from None
    except Exception as error:
        raise ValueError(
            f"'{path}' is no checkpoint, or a damaged one; nothing was loaded. Checkpoints are "
            "what ml.callbacks.Checkpoint writes, and files of weights are for `load_weights`. "
            f"Beside it are {_others(path)}. {type(error).__name__}: {error}"
        ) from error
    if not verified:
        warnings.warn(
            f"'{path}' has no checksum, because an earlier mlsystem wrote it. Changes on the disk "
            "are not detected.",
            stacklevel=2,
        )
    return found


def _others(path: Path) -> str:
    names = sorted(other.name for other in path.parent.glob(f"*{ENDING}") if other != path)
    return ", ".join(names) or f"no others in '{path.parent}'"


def clean(folder: Path) -> None:
    """Remove unfinished files, except files of other running processes."""
    shards.clean(folder)
    for path in folder.glob(f".*{ENDING}"):
        pid = path.name.split(".")[1]
        if not pid.isdigit() or int(pid) == os.getpid() or not folder_lock.is_running(int(pid)):
            path.unlink(missing_ok=True)

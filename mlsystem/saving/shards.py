"""State that is sharded over devices. It stands in a folder beside the file of a checkpoint.

A dataset in the file names the folder, and lists the entries that are in it in place of the file.
"""

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import h5py
import numpy as np

from mlsystem import _keras
from mlsystem.engine import engine

ENDING = ".shards"
_DATASET = "_shards"


class Shards:
    """The sharded variables of a model, to save.

    Attributes:
        variables: the variables, by object and number as in a file of weights.
    """

    def __init__(self, model: Any) -> None:
        self.variables: dict[tuple[str, str], Any] = {}
        state = model._mlsystem.state_variables()
        found = {id(variable) for variable in state if engine.is_sharded(variable)}
        if found and engine.shards().can_save():
            for where, entry in _keras.state_entries(model).items():
                self.variables |= {(where, key): v for key, v in entry.items() if id(v) in found}

    def save(self, folder: Path) -> Callable[[], None]:
        """Start to write them to a folder. Return a function that waits for all processes."""
        self.folder = folder
        if not self.variables:
            return lambda: None
        wait: Callable[[], None] = engine.shards().save(folder, self._values())
        return wait

    def _values(self) -> list[Any]:
        return _keras.values(list(self.variables.values()))

    def note(self, file: h5py.File) -> None:
        """Say in a file of weights where they are."""
        if self.variables:
            text = json.dumps({"folder": self.folder.name, "entries": list(self.variables)})
            file[_DATASET] = np.frombuffer(text.encode(), "uint8")


def _note(path: Path) -> Any:
    with h5py.File(path, "r") as file:
        return json.loads(file[_DATASET][...].tobytes()) if _DATASET in file else None


def completed(path: Path, found: Any, expected: Any) -> Any:
    """Add the sharded entries of a checkpoint to what its file holds.

    Args:
        path: the file.
        found: the entries in the file.
        expected: the entries of the model. An array gets the sharding of the variable.
    """
    if (note := _note(path)) is None:
        return found
    like = [_variable(path, expected, *entry) for entry in note["entries"]]
    arrays = engine.shards().restore(path.with_name(note["folder"]), _keras.values(like))
    joined = {where: dict(entry) for where, entry in found.items()}
    for (where, key), array in zip(note["entries"], arrays, strict=True):
        joined.setdefault(where, {})[key] = array
    return joined


def _variable(path: Path, expected: Any, where: str, key: str) -> Any:
    if key not in expected.get(where, {}):
        raise ValueError(f"'{path}' does not fit: the model has no weight {where}/{key}.")
    return expected[where][key]


def remove_unused(folder: Path, files: str) -> None:
    """Remove the folders that none of the files in a folder names."""
    if folders := set(folder.glob(f"*{ENDING}")):
        notes = [_note(path) for path in folder.glob(f"*{files}")]
        used = {note["folder"] for note in notes if note is not None}
        for path in folders:
            if path.name not in used:
                shutil.rmtree(path, ignore_errors=True)


def clean(folder: Path) -> None:
    """Remove folders that a killed run has left unfinished."""
    for path in folder.glob(f"*{ENDING}.*"):
        shutil.rmtree(path, ignore_errors=True)

"""The private names of Keras for files of weights and models.

All of them exist in Keras 3.11, unless a line says otherwise. The import of mlsystem fails without
these:

- `KerasSaveable`: the base of what stands in a group of its own in a file.
- `H5IOStore`: reads and writes the groups of a file. A subclass keeps them in memory.
- `_save_state`, `_load_state`: what `save_weights` saves and `load_weights` loads, so that a file
  can be compared with a model before anything is loaded.
- `_walk_saveable`, `to_snake_case`: under which names the parts of a model stand in a file.

What happens without these differs:

- `_safe_zip_read`, `safe_get_h5_group`, `safe_get_h5_dataset` (since 3.15): refuse files that link
  to other files, or that inflate to many times their size. Without them, such files are read.
- `archive` of the store that `.keras` files are read from: finds damaged files. Without it, a
  damaged `.keras` file loads.
- `H5IOStore.h5_file`: lists the groups of a file. Without it, no file of weights can be read.
- `_unpickle_model`: a functional `MLModel` is pickled as its own class. Without it, the first such
  model raises an `AttributeError`.
- `keras.src.backend.` as the module of an optimizer: torch has classes of its own. If that place
  changes, files saved on torch do not load on other backends.
"""

import contextlib
import itertools
import operator
import zipfile
from collections.abc import Iterable, Iterator
from typing import Any

import keras

from mlsystem._keras.lookup import check, needed

with needed():
    from keras.src.saving import saving_lib
    from keras.src.saving.keras_saveable import KerasSaveable as KerasSaveable
    from keras.src.saving.saving_lib import H5IOStore, _load_state, _save_state, _walk_saveable
    from keras.src.utils.naming import to_snake_case

check(H5IOStore, "close", "get", "make")  # later ones also ask for `has_path`

# A file in a zip archive, a group and an array of an HDF5 file; with Keras' checks, if it has them.
read_member = getattr(saving_lib, "_safe_zip_read", zipfile.ZipFile.read)
_group = getattr(saving_lib, "safe_get_h5_group", operator.getitem)
_dataset = getattr(saving_lib, "safe_get_h5_dataset", operator.getitem)

_modules: dict[str, set[str]] = {}  # by the name that a class would have in a script


def register(cls: type) -> None:
    """Let files name a class by its module and name, as if a decorator had registered it.

    What was saved where the class stood in a script or notebook finds it in a module, too, if no
    other class has this name.
    """
    keras.saving.register_keras_serializable(cls.__module__, cls.__qualname__)(cls)
    known, name = keras.saving.get_custom_objects(), f"__main__>{cls.__qualname__}"
    modules = _modules.setdefault(name, set())
    modules.add(cls.__module__)
    if "__main__" not in modules:
        known.pop(name, None)
        if len(modules) == 1:
            known[name] = cls


def register_as(cls: type, registered: type) -> None:
    """Save and pickle instances of a class as those of another class."""
    cls._unpickle_model = registered._unpickle_model  # type: ignore[attr-defined]
    package, is_registered, name = keras.saving.get_registered_name(registered).partition(">")
    if is_registered:
        known = keras.saving.get_custom_objects()
        before = dict(known)
        keras.saving.register_keras_serializable(package, name)(cls)
        known.update(before)  # files name the other class


def portable(config: Any) -> Any:
    """Change what Keras serialized so that every backend reads it.

    On torch, Keras' optimizers are of classes of its own, which no other backend has.
    """
    if isinstance(config, dict):
        inside = str(config.get("module")).startswith("keras.src.backend.")
        if inside and hasattr(keras.optimizers, str(config.get("class_name"))):
            config |= {"module": "keras.optimizers", "registered_name": None}
    if isinstance(config, (dict, list, tuple)):
        for value in config.values() if isinstance(config, dict) else config:
            portable(value)
    return config


class _Entries(H5IOStore):
    """A file of Keras in memory: arrays by object and number."""

    def __init__(self, entries: dict[str, dict[str, Any]]) -> None:
        self.entries = entries

    def __bool__(self) -> bool:
        return True

    def make(self, path: str, metadata: Any = None) -> dict[str, Any]:
        return self.entries.setdefault(path, {})

    def get(self, path: str) -> dict[str, Any]:
        return self.entries.get(path, {})

    def has_path(self, path: str) -> bool:
        return any(f"{known}/".startswith(f"{path}/") for known in self.entries)


def state_entries(model: Any) -> dict[str, dict[str, Any]]:
    """Return what Keras would save of a model: `{object: {number: variable}}`."""
    entries: dict[str, dict[str, Any]] = {}
    _save_state(model, _Entries(entries), None, "", set())
    return _filled(entries)


def file_entries(file: Any) -> dict[str, dict[str, Any]]:
    """Return what a file of weights holds: `{object: {number: array}}`."""
    groups: list[str] = []
    with contextlib.closing(H5IOStore(file, mode="r")) as store:
        store.h5_file.visit(groups.append)
        objects = [group[:-5] for group in groups if f"/{group}".endswith("/vars")]
        return _filled({path: dict(store.get(path)) for path in objects})


def _filled(entries: dict[str, dict[str, Any]]) -> dict[str, dict[str, Any]]:
    return {path: entry for path, entry in entries.items() if entry}


class _Without(H5IOStore):
    """A file to write, without some variables."""

    left_out: frozenset[int] = frozenset()

    def __setitem__(self, key: str, value: Any) -> None:
        if id(value) not in self.left_out:
            super().__setitem__(key, value)


def save_state(model: Any, file: Any, left_out: Iterable[Any] = ()) -> None:
    """Save what `save_weights` does, to a file in memory. Leave out some variables."""
    with contextlib.closing(_Without(file, mode="w")) as store:
        store.left_out = frozenset(map(id, left_out))
        _save_state(model, store, None, "", set())


class _First(dict[int, Any]):
    """Keeps the first error of each object: Keras asks those that failed again, without data."""

    def __setitem__(self, key: int, value: Any) -> None:
        self.setdefault(key, value)


def load_entries(model: Any, entries: Any) -> None:
    """Load into a model what `file_entries` read, which must fit."""
    failed = _First()
    store = _Entries(entries)
    _load_state(model, store, None, "", False, set(), failed_saveables=set(), error_msgs=failed)
    for saveable, error in failed.values():
        raise ValueError(f"{saveable} cannot load its part of the file: {error}") from error


def parts(model: Any, entries: Iterable[str]) -> Iterator[tuple[str, Any]]:
    """Yield the parts of a model that may stand behind some entries of files, with their paths.

    A shared part has several paths. Keras' files have each part under the first one only.
    """
    ways = (itertools.accumulate(entry.split("/"), "{}/{}".format) for entry in entries)
    yield from _parts(model, "", {"", *itertools.chain.from_iterable(ways)})


def _parts(part: Any, path: str, ways: set[str]) -> Iterator[tuple[str, Any]]:
    inside: Iterable[tuple[str, Any]] = ()
    if path not in ways:
        return
    if isinstance(part, KerasSaveable):
        yield path, part
        inside = _walk_saveable(part)
    elif isinstance(part, (list, dict, tuple)):
        inside = _numbered(part.values() if isinstance(part, dict) else part)
    for name, child in inside:
        yield from _parts(child, f"{path}/{name}".strip("/"), ways)


def _numbered(items: Iterable[Any]) -> Iterator[tuple[str, Any]]:
    """Yield the items of a list, named by their class as Keras does."""
    counts: dict[str, int] = {}
    for item in items:
        holds = isinstance(item, (list, dict, tuple))
        name = "container" if holds else to_snake_case(type(item).__name__)
        counts[name] = counts.get(name, -1) + 1
        yield (f"{name}_{counts[name]}" if counts[name] else name), item


def read_group(file: Any, name: str) -> dict[str, Any]:
    """Return the arrays in a group of an HDF5 file, with Keras' checks."""
    group = _group(file, name)
    return {key: _dataset(group, key)[...] for key in group}


def archive_of(store: Any) -> Any:
    """Return the zip archive that Keras reads weights from piece by piece; None for all else."""
    return getattr(store, "archive", None)

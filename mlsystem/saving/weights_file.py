"""Load a file of weights completely or not at all. Save members and random seeds in it."""

import io
import logging
import warnings
import zipfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

from mlsystem import _keras, _learner
from mlsystem.engine import engine
from mlsystem.routing import members
from mlsystem.saving import checksum, missing_optimizers, shards

Entries = Mapping[str, Mapping[str, Any]]

_WEIGHTS = "model.weights.h5"
_log = logging.getLogger("mlsystem")


class _Part(_keras.KerasSaveable):
    """A part of a model with its own group in the files that Keras saves."""

    def __init__(self, model: Any) -> None:
        self._held = (lambda: model,)  # hidden from Keras, which would save it again

    def _obj_type(self) -> str:
        return "Loss"  # a kind of object that Keras knows


class Members(_Part):
    """The objects that a system holds in lists and dicts, saved by their names (`critics:0`).

    Keras numbers the items of a list or a dict by class. A dict in another order would be loaded
    into the wrong models. Older versions of Keras leave out lists in lists.
    """

    def _found(self) -> dict[str, Any]:
        system = self._held[0]()
        found = [
            item
            for name in system._mlsystem.containers()
            for item in members.walk(name, getattr(system, name), _keras.KerasSaveable)
        ]
        return {path.replace("/", ":"): saveable for path, saveable in found}

    def __dir__(self) -> list[str]:
        return list(self._found())

    def __getattr__(self, name: str) -> Any:
        if ":" in name and name in (found := self._found()):
            return found[name]
        raise AttributeError(name)


class Seeds(_Part):
    """The random seeds of a model, which Keras leaves out of its files.

    They have their own group beside the weights. So Keras' own models can read our files, and we
    can read files of Keras. A file without seeds does not change the seeds.
    """

    def _states(self) -> list[Any]:
        model = self._held[0]()
        others = {id(v) for v in [*model.weights, *model.metrics_variables]}
        return [v for v in model.variables if id(v) not in others]

    def save_own_variables(self, store: Any) -> None:
        """Save the seeds. Keras calls this with one group of a file."""
        for i, state in enumerate(self._states()):
            store[str(i)] = state

    def load_own_variables(self, store: Any) -> None:
        """Load the seeds. Keras calls this with one group of a file."""
        states = self._states()
        if (found := len(store.keys())) not in (0, len(states)):
            raise ValueError(f"The file has {found} random seeds; the model has {len(states)}.")
        for i in range(found):
            states[i].assign(store[str(i)])


_ADVICE = "Load it into the model that it was saved from, or leave out what differs with "


def load_weights(model: Any, path: Any, skip_mismatch: bool, advice: str = "") -> None:
    """Load a file of weights and optimizers. If it does not fit, change nothing.

    For a single model, as in Keras, the file may lack the state of the optimizer.
    """
    anew = not _learner.is_system(model)
    load(model, fitting(model, path, skip_mismatch, advice, anew))


def check_archive(store: Any) -> None:
    """Raise an error if a `.keras` file is damaged. Keras does not check the checksums in it."""
    if (archive := _keras.archive_of(store)) is not None and (bad := archive.testzip()):
        raise ValueError(f"'{archive.filename}' is damaged: '{bad}' in it has changed.")


def load(model: Any, entries: Entries) -> None:
    """Load entries that fit. If `load_own_variables` of a layer fails, change nothing."""
    variables = model._mlsystem.state_variables()
    before = [engine.kept(variable.value) for variable in variables]
    try:
        _keras.load_entries(model, entries)
    except Exception:
        for variable, value in zip(variables, before, strict=True):
            variable.assign(value)
        raise


def fitting(
    model: Any, path: Any, skip_mismatch: bool, advice: str = "", anew: bool = False
) -> Entries:
    """Return the entries of a file, after checking that they fit.

    With `anew`, an optimizer without state in the file starts from scratch.
    """
    found = _read(path)
    if "optimizer" in {where.partition("/")[0] for where in found}:
        model._mlsystem.ready_optimizers()
    expected = _keras.state_entries(model)
    if not str(path).endswith(".keras"):
        found = shards.completed(Path(path), found, expected)
    found = _wanted(_with_seeds(found, expected), expected)
    fresh: list[str] = []
    if any(_differences(expected, found)):
        parts = dict(_keras.parts(model, [*expected, *found]))
        found = _unaliased(found, expected, parts)
        if anew:
            found, fresh = missing_optimizers.anew(found, expected, parts, _differences)
    if differences := list(_differences(expected, found)):
        advice = advice or f"{_ADVICE}skip_mismatch=True"
        _say(model, path, [text for *_, text in differences], skip_mismatch, advice)
        found = _merged(expected, found, {(where, group) for where, group, _ in differences})
    if fresh:
        warnings.warn(
            f"'{path}' does not hold the state of {', '.join(fresh)}, which starts from scratch.",
            stacklevel=5,
        )
    return found


def _unaliased(found: Entries, expected: Entries, parts: Mapping[str, Any]) -> Entries:
    """Return entries under the names of the model, for layers with several names."""
    names = {id(parts[where]): where for where in expected}
    known = {path: names[id(part)] for path, part in parts.items() if id(part) in names}
    return {
        where if known.get(where, where) in found else known[where]: entry
        for where, entry in found.items()
    }


def _read(path: Any) -> Entries:
    try:
        if str(path).endswith(".keras"):
            with zipfile.ZipFile(path) as archive:
                return _keras.file_entries(io.BytesIO(_keras.read_member(archive, _WEIGHTS)))
        if not checksum.verify(path):
            _log.info("'%s' has no checksum: numbers that changed on the disk go unnoticed.", path)
        return _keras.file_entries(Path(path))
    except FileNotFoundError:
        raise FileNotFoundError(f"There is no file '{path}'.") from None
    except Exception as error:
        raise ValueError(
            f"'{path}' cannot be read as a file of Keras weights: it is damaged, cut off, or "
            f"another kind of file. Nothing was loaded. {type(error).__name__}: {error}"
        ) from error


def _with_seeds(found: Entries, expected: Entries) -> Entries:
    """Add the model's seeds to a file without seeds, as Keras saves it. Then they do not change."""
    seeds = {where: e for where, e in expected.items() if where.endswith("_seeds")}
    return found if any(where in found for where in seeds) else {**found, **seeds}


def _wanted(found: Entries, expected: Entries) -> Entries:
    """Return the entries without optimizers that the models lack, as models in a system do."""
    return {
        where: entry
        for where, entry in found.items()
        if where in expected or "optimizer" not in where.split("/")
    }


def _differences(expected: Entries, found: Entries) -> Any:
    """Yield the mismatches as `(where, group, text)`, in the order of the model."""
    for where in {**expected, **found}:
        ours, theirs = _grouped(expected.get(where, {})), _grouped(found.get(where, {}))
        for group in {**ours, **theirs}:
            if group not in ours or group not in theirs:
                yield where, group, f"{_named(where, group)} {_missing(theirs.get(group))}"
                continue
            for key in {**ours[group], **theirs[group]}:
                if text := _difference(ours[group].get(key), theirs[group].get(key)):
                    yield where, group, f"{_named(where, key)} {text}"


def _named(where: str, key: str) -> str:
    """Return a place in a file as a user knows it: `critics/0/net/dense/1`."""
    path = f"{where}/{key}".replace("_members/", "").replace("_seeds", "random seeds")
    return f"{path.replace(':', '/').strip('/') or 'own weights'}:"


def _grouped(entry: Mapping[str, Any]) -> dict[str, dict[str, Any]]:
    """Return an entry in groups that load together: a layer's variables, or one optimizer's."""
    groups: dict[str, dict[str, Any]] = {}
    for key, value in entry.items():
        groups.setdefault(_group(key), {})[key] = value
    return groups


def _missing(theirs: Any) -> str:
    return "is not in the file" if theirs is None else "is in the file alone"


def _difference(ours: Any, theirs: Any) -> str | None:
    if ours is None or theirs is None:
        return _missing(theirs)
    shapes = tuple(theirs.shape), tuple(ours.shape)
    return None if shapes[0] == shapes[1] else f"has shape {shapes[0]} in the file, not {shapes[1]}"


def _group(key: str) -> str:
    return key.rpartition(".")[0]


def _say(model: Any, path: Any, differences: list[str], skip_mismatch: bool, advice: str) -> None:
    more = f"\n  and {len(differences) - 20} more" if len(differences) > 20 else ""
    listed = "".join(f"\n  {text}" for text in differences[:20]) + more
    if skip_mismatch:
        warnings.warn(f"Parts of '{path}' do not fit and were not loaded:{listed}", stacklevel=5)
        return
    raise ValueError(f"'{path}' does not fit '{model.name}'; nothing was loaded. {advice}:{listed}")


def _merged(expected: Entries, found: Entries, bad: set[tuple[str, str]]) -> Entries:
    """Return the entries of the file where they fit. Elsewhere, return the entries of the model."""
    return {
        where: {
            key: np.array(value) if (where, _group(key)) in bad else found[where][key]
            for key, value in entry.items()
        }
        for where, entry in expected.items()
    }

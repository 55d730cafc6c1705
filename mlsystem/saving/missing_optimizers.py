"""Start optimizers from scratch if a file of weights lacks their state."""

from collections.abc import Callable, Mapping
from typing import Any

import keras

from mlsystem import _keras
from mlsystem.optimizers import creation

Entries = Mapping[str, Mapping[str, Any]]


def anew(
    found: Entries,
    expected: Entries,
    parts: Mapping[str, Any],
    differences: Callable[[Entries, Entries], Any],
) -> tuple[Entries, list[str]]:
    """Return the entries of a file, with new entries for optimizers without state in the file.

    Also return the names of these optimizers.
    """
    alone = [w for w in found if w not in expected and _counts(found[w])]
    found = {where: entry for where, entry in found.items() if where not in alone}
    fresh = []
    for where, optimizer in _outermost(parts).items():
        mine, theirs = _under(where, expected), _under(where, found)
        if any(differences(mine, theirs)):
            found = {w: e for w, e in found.items() if w not in theirs} | _fresh(where, optimizer)
            fresh.append(f"'{where}' ({type(optimizer).__name__})")
    return found, fresh


def _counts(entry: Mapping[str, Any]) -> bool:
    """Return whether an entry may belong to an optimizer.

    The first of an optimizer's variables counts its updates.
    """
    first = entry.get("0") if len(entry) > 1 else None
    return first is not None and first.shape == () and "int" in str(first.dtype)


def _outermost(parts: Mapping[str, Any]) -> dict[str, Any]:
    """Return the optimizers of a model by path, without inner optimizers of wrappers."""
    found = {p: part for p, part in parts.items() if isinstance(part, keras.optimizers.Optimizer)}
    return {p: optimizer for p, optimizer in found.items() if p.rpartition("/")[0] not in found}


def _under(where: str, entries: Entries) -> dict[str, Mapping[str, Any]]:
    return {w: entry for w, entry in entries.items() if f"{w}/".startswith(f"{where}/")}


def _fresh(where: str, optimizer: Any) -> dict[str, Mapping[str, Any]]:
    """Return the entries of an optimizer that has made no update yet."""
    new = creation.copy(optimizer)
    if optimizer.built:
        new.build(_keras.optimized_weights(optimizer))
    return {f"{where}/{w}".strip("/"): entry for w, entry in _keras.state_entries(new).items()}

"""When each model is updated: phases within a batch, and every n-th batch. Plain Python."""

from collections.abc import Mapping, Sequence
from typing import Any

from mlsystem import routing


def read_phases(phases: Any, models: Sequence[str]) -> list[list[str]]:
    """The models of each phase, spelled out; one phase with all of them by default.

    >>> read_phases([("critics",), "generator"], ["critics/0", "critics/1", "generator"])
    [['critics/0', 'critics/1'], ['generator']]
    """
    if phases is None:
        return [list(models)]
    read = [routing.resolve(group, models, "phases") for group in phases]
    if missing := [m for m in models if not any(m in group for group in read)]:
        raise ValueError(
            f"phases leaves out {', '.join(repr(m) for m in missing)}, which would never be "
            "updated. Name it in a phase, or freeze it with `trainable = False`."
        )
    return read


def read_every(update_every: Any, models: Sequence[str]) -> dict[str, int]:
    """After how many batches each model is updated; every batch where nothing is said."""
    if not isinstance(update_every or {}, Mapping):
        raise ValueError(f"update_every is {update_every!r}; give a dict {{model: n}}.")
    every = routing.by_name(update_every or {}, models, "update_every")
    for model, n in every.items():
        if isinstance(n, bool) or not isinstance(n, int) or n < 1:
            raise ValueError(f"update_every gives {n!r} for '{model}'; give a whole number from 1.")
    return every


def due(every: Mapping[str, int], models: Sequence[str], batch: int) -> frozenset[str]:
    """The models that are updated on a batch, counted from 1."""
    return frozenset(m for m in models if batch % every.get(m, 1) == 0)

"""The names of validation sets in the names of logs."""

from collections.abc import Iterable
from typing import Any


def front(log: str, sets: Iterable[str]) -> str:
    """What stands before a log for saying where it was measured: `val_`, the name of a set.

    >>> front("val_loss", ["clean"]), front("val_clean_loss", ["clean"]), front("loss", ["clean"])
    ('val_', 'val_clean_', '')
    """
    val = "val_" if log.startswith("val_") else ""
    named = [f"{val}{name}_" for name in sets if log.startswith(f"{val}{name}_")]
    return max(named, key=len, default=val)


def names(model: Any) -> list[str]:
    """The names of the sets that the `fit` in progress validates on."""
    call = model._mlsystem.call
    return [] if call is None else call.validation_names

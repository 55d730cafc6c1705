"""Split `val_NAME_`, where NAME is a validation set, from the name of a log."""

from collections.abc import Iterable
from typing import Any


def front(log: str, sets: Iterable[str]) -> str:
    """Return the prefix of a log: `val_`, the name of a validation set, both, or nothing.

    >>> front("val_loss", ["clean"]), front("val_clean_loss", ["clean"]), front("loss", ["clean"])
    ('val_', 'val_clean_', '')
    """
    val = "val_" if log.startswith("val_") else ""
    named = [f"{val}{name}_" for name in sets if log.startswith(f"{val}{name}_")]
    return max(named, key=len, default=val)


def names(model: Any) -> list[str]:
    """Return the names of the validation sets of the running `fit`."""
    call = model._mlsystem.call
    return [] if call is None else call.validation_names

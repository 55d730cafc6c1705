"""Validate the contents of a checkpoint before training resumes."""

from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

_KINDS = {
    "epoch": int,
    "backend": str,
    "position": dict,
    "callbacks": list,
    "given": list,
    "stopped": bool,
    "metrics": dict,
    "shown": list,
}


def check(path: Path, state: Any) -> None:
    """Raise an error for values that `Checkpoint` never writes.

    Raises:
        ValueError: with the file, the value and the expected value.
    """
    for name, value, expected in _wrong(state):
        raise ValueError(
            f"'{path}' holds {name}={value!r}, and {expected} was expected. The file was not "
            "written by ml.callbacks.Checkpoint, or has been changed. Nothing was loaded."
        )


def _wrong(state: Any) -> Iterator[tuple[str, Any, str]]:
    """Yield the wrong values, as a name, the value, and the expected value."""
    if not isinstance(state, Mapping):
        yield "state", state, "a dict"
        return
    for name, kind in _KINDS.items():
        if type(state.get(name)) is not kind:
            yield name, state.get(name), f"a value of type {kind.__name__}"
            return
    yield from _wrong_counts({"epoch": state["epoch"], **_counts(state["position"])})
    for callback in state["callbacks"]:
        if not isinstance(callback, Mapping) or type(callback.get("attributes")) is not dict:
            yield "callbacks", callback, "a dict with the attributes of a callback"


def _counts(position: dict[Any, Any]) -> dict[str, Any]:
    """Return the counts in a position. Only a position inside an iterator (`made`) has a batch."""
    optional = [name for name in ("batch", "drawn") if name in position or "made" in position]
    return {name: position.get(name) for name in ("total", *optional)}


def _wrong_counts(counts: dict[str, Any]) -> Iterator[tuple[str, Any, str]]:
    for name, value in counts.items():
        if type(value) is not int or value < 0:
            yield name, value, "a whole number from 0"
            return
    if counts.get("batch", 0) > min(counts["total"], counts.get("drawn", 0)):
        yield "batch", counts["batch"], f"at most the batches read, of total={counts['total']},"

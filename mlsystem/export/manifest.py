"""`manifest.json`: the files of an export, with inputs, outputs, versions and checksums."""

import datetime
import glob
import hashlib
import importlib.metadata
import json
import platform
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import keras

from mlsystem.engine import engine
from mlsystem.export.formats import Format
from mlsystem.export.served_model import ServedModel
from mlsystem.export.writing import Written, file_of

NAME = "manifest.json"


def write(
    folder: Path, models: Sequence[ServedModel], wanted: Format, written: Mapping[str, Written]
) -> dict[str, Any]:
    """Write the manifest of a folder of files, and return it."""
    entries = {m.name: _entry(folder, m, wanted, written[m.name]) for m in models}
    manifest = {"format": wanted.name, "models": entries, "created": _now()} | _versions()
    (folder / NAME).write_text(json.dumps(manifest, indent=2) + "\n")
    return manifest


def _entry(folder: Path, model: ServedModel, wanted: Format, written: Written) -> dict[str, Any]:
    path = file_of(folder, model.name, wanted)
    return {
        "file": path.relative_to(folder).as_posix(),
        "inputs": [port.facts() for port in model.inputs],
        "outputs": [port.facts() for port in model.outputs],
        "written_by": written.by,
        "check": written.checks[model.name],
        "sha256": _checksums(folder, path),
    }


def _checksums(folder: Path, path: Path) -> dict[str, str]:
    """Return the checksum of each file of a model: one, or all in its folder or beside it."""
    found = path.rglob("*") if path.is_dir() else path.parent.glob(f"{glob.escape(path.stem)}.*")
    return {
        one.relative_to(folder).as_posix(): hashlib.sha256(one.read_bytes()).hexdigest()
        for one in sorted(found)
        if one.is_file()
    }


def _now() -> str:
    return datetime.datetime.now(datetime.UTC).isoformat(timespec="seconds")


def _versions() -> dict[str, str]:
    return {
        "mlsystem": importlib.metadata.version("mlsystem"),
        "keras": keras.__version__,
        "trained_on": engine.name,
        "python": platform.python_version(),
    }


def is_in(folder: Path) -> bool:
    """Return whether a folder holds an export."""
    try:
        found = json.loads((folder / NAME).read_text())
    except (OSError, ValueError):
        return False
    return isinstance(found, dict) and {"format", "models", "mlsystem"} <= set(found)

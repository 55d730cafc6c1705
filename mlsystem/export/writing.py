"""Write the files of some models on the present backend, and check each."""

import glob
import importlib
import shutil
import tempfile
import textwrap
import warnings
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from mlsystem.engine import engine
from mlsystem.export import comparison
from mlsystem.export.formats import Format, versioned
from mlsystem.export.served_model import ServedModel


@dataclass
class Written:
    """What became of the models: those written, and an error for each other one.

    Attributes:
        checks: by each model that was written, the result of its check. None if the runtime is
            missing, or nobody asked.
        errors: the errors, by the model.
        by: the backend that wrote, with its version.
    """

    checks: dict[str, dict[str, Any] | None] = field(default_factory=dict)
    errors: dict[str, str] = field(default_factory=dict)
    by: str = ""


def file_of(folder: Path, name: str, wanted: Format) -> Path:
    """Return the path of the file of a model: its path in the system, and the suffix."""
    return folder / f"{name}{wanted.suffix}"


def write_all(models: Sequence[ServedModel], wanted: Format, folder: Path, check: bool) -> Written:
    """Write the files of all models. An error of one model leaves the others alone."""
    result = Written(by=versioned(engine.name))
    for served in models:
        path = file_of(folder, served.name, wanted)
        path.parent.mkdir(parents=True, exist_ok=True)
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            try:
                _write_one(served, wanted, path, check, result)
            except Exception as error:
                result.errors[served.name] = f"{engine.name}: {short(error)}"
                _remove(path)
    return result


def _remove(path: Path) -> None:
    """Remove what a failed attempt has left, so that another backend starts from nothing."""
    shutil.rmtree(path, ignore_errors=True)
    for file in path.parent.glob(f"{glob.escape(path.stem)}.*"):
        if file.is_file():
            file.unlink()


def short(error: BaseException) -> str:
    """Return an error as one line of limited length."""
    return textwrap.shorten(f"{type(error).__name__}: {error}", 500, placeholder=" ...")


def _write_one(
    served: ServedModel, wanted: Format, path: Path, check: bool, result: Written
) -> None:
    with engine.tracing(served.model):
        _write(served, wanted, path)
    result.checks[served.name] = comparison.check(served, path, wanted) if check else None


def _write(served: ServedModel, wanted: Format, path: Path) -> None:
    known = engine.exporting().WRITERS
    if wanted.name in known:
        known[wanted.name](served, path)
        return
    with tempfile.TemporaryDirectory() as folder:
        between = "onnx" if "onnx" in known else "tf_saved_model"
        source = Path(folder) / f"model.{between}"
        known[between](served, source)
        _to_openvino(source, path)


def _to_openvino(source: Path, path: Path) -> None:
    """Convert ONNX or a SavedModel to OpenVINO's own files, in full precision."""
    openvino = importlib.import_module("openvino")
    model = openvino.Core().read_model(str(source))
    openvino.save_model(model, str(path), compress_to_fp16=False)

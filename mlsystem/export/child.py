"""The program that exports on another backend: `python -m mlsystem.export.child JOB ANSWER`."""

import contextlib
import importlib
import pickle
import runpy
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import keras

from mlsystem.engine import engine
from mlsystem.export import writing
from mlsystem.export.other_backend import Job, Packed, unpack
from mlsystem.export.served_model import ServedModel
from mlsystem.export.writing import short


def main(question: Path, answer: Path) -> None:
    """Read a job, do it, and write what became of it."""
    job: Job = pickle.loads(question.read_bytes())
    keras.config.set_floatx(job.settings["floatx"])
    keras.config.set_image_data_format(job.settings["images"])
    _import(job)
    errors: dict[str, str] = {}
    models = list(_unpacked(job.models, errors))
    result = writing.write_all(models, job.wanted, Path(job.folder), job.check)
    result.errors |= errors
    answer.write_bytes(pickle.dumps(result))


def _unpacked(models: Any, errors: dict[str, str]) -> Iterator[ServedModel]:
    packed: Packed
    for packed in models:
        try:
            yield unpack(packed)
        except Exception as error:
            errors[packed.served.name] = f"{engine.name}: {short(error)}"


def _import(job: Job) -> None:
    """Import what defines the user's classes. A missing module shows when a class is missing."""
    importlib.import_module("mlsystem")
    for name in job.modules:
        with contextlib.suppress(ImportError):
            importlib.import_module(name)
    if job.script:
        with _defining_only(), contextlib.suppress(_Enough):
            runpy.run_path(job.script, run_name="__mp_main__")


class _Enough(BaseException):
    """Ends the script of the user where it would begin to train."""


@contextlib.contextmanager
def _defining_only() -> Iterator[None]:
    """End a script at its first `fit`, `setup` or `export`, after its classes are defined."""

    def enough(*args: Any, **kwargs: Any) -> None:
        raise _Enough

    ml = importlib.import_module("mlsystem")
    names = ("fit", "evaluate", "predict", "setup", "export")
    changed = [(c, name) for c in (ml.MLSystem, ml.MLModel, keras.Model) for name in names]
    before = [(cls, name, vars(cls).get(name)) for cls, name in changed]
    try:
        for cls, name in changed:
            setattr(cls, name, enough)
        yield
    finally:
        for cls, name, method in before:
            if method is None:
                delattr(cls, name)
            else:
                setattr(cls, name, method)


if __name__ == "__main__":
    main(*map(Path, sys.argv[1:]))

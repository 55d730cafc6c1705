"""The program that exports on another backend: `python -m mlsystem.export.child JOB ANSWER`."""

import contextlib
import importlib
import operator
import pickle
import sys
import types
from collections.abc import Iterator, Mapping, Sequence
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
    classes = _classes(job)
    errors: dict[str, str] = {}
    models = list(_unpacked(job.models, classes, errors))
    result = writing.write_all(models, job.wanted, Path(job.folder), job.check)
    result.errors |= errors
    answer.write_bytes(pickle.dumps(result))


def _unpacked(
    models: Any, classes: Mapping[str, Any], errors: dict[str, str]
) -> Iterator[ServedModel]:
    packed: Packed
    for packed in models:
        try:
            yield unpack(packed, classes)
        except Exception as error:
            errors[packed.served.name] = f"{engine.name}: {short(error)}"


def _classes(job: Job) -> dict[str, Any]:
    """Import what defines the user's classes, and return those that were found, by name."""
    importlib.import_module("mlsystem")  # registers the classes of the library
    for name in job.modules:
        with contextlib.suppress(ImportError):  # the error for the missing class says more
            importlib.import_module(name)
    script = _defined_in(job.script, job.words) if job.script else None
    found = {}
    for name, (module, place) in job.classes.items():
        owner = script if module == "__main__" else sys.modules.get(module)
        with contextlib.suppress(AttributeError):
            found[name] = operator.attrgetter(place)(owner)
    return found


def _defined_in(path: str, words: Sequence[str]) -> types.ModuleType:
    """Run a script as a module, up to where it would train, and return the module."""
    sys.argv = list(words)  # which the script may read
    module = sys.modules[_NAME] = types.ModuleType(_NAME)
    module.__file__ = path
    with _defining_only(), contextlib.suppress(_Enough):
        exec(compile(Path(path).read_bytes(), path, "exec"), vars(module))
    return module


_NAME = "__mp_main__"  # as multiprocessing names the script in its processes


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

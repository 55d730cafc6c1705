"""Find what a word such as `gan.py:images` names."""

import importlib
import importlib.util
import sys
from pathlib import Path
from types import ModuleType
from typing import Any

from mlsystem._cli.mistake import Mistake, near

modules: dict[Path, ModuleType] = {}  # the user's files


def find(word: str, what: str) -> Any:
    """Return the object `NAME` of `file.py:NAME` or `package.module:NAME`.

    Raises:
        Mistake: the word has another form, or there is no such file or name.
    """
    place, colon, name = word.rpartition(":")
    if not colon or not place or not name:
        raise Mistake(f"{what} is '{word}'. Write file.py:NAME, such as gan.py:images.")
    module = _file(place, what) if place.endswith(".py") else _module(place, what)
    if not hasattr(module, name):
        names = [found for found in vars(module) if not found.startswith("_")]
        raise Mistake(f"{what}: {place} has no '{name}'.{near(name, names)}")
    return getattr(module, name)


def _file(place: str, what: str) -> ModuleType:
    path = Path(place).resolve()
    if path not in modules:
        if not path.is_file():
            raise Mistake(f"{what}: there is no file '{place}'.{_near_file(path)}")
        sys.path.insert(0, str(path.parent))  # the file may import its neighbours, as a script does
        _execute(path)
    return modules[path]


def _execute(path: Path) -> None:
    spec = importlib.util.spec_from_file_location(path.stem, path)
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    modules[path] = module
    sys.modules.setdefault(path.stem, module)  # a file named random.py does not replace `random`
    spec.loader.exec_module(module)


def _near_file(path: Path) -> str:
    files = path.parent.glob("*.py") if path.parent.is_dir() else []
    return near(path.name, [file.name for file in files])


def _module(place: str, what: str) -> ModuleType:
    sys.path.insert(0, "")
    try:
        return importlib.import_module(place)
    except ModuleNotFoundError as error:
        if error.name is None or not f"{place}.".startswith(f"{error.name}."):
            raise
        raise Mistake(
            f"{what}: there is no module '{place}'. Write a file with its ending: {place}.py:NAME."
        ) from None

"""Find what a word such as `gan.py:images` names."""

import importlib
import importlib.util
import inspect
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
    place, _, name = word.rpartition(":")
    if not place or not name:
        raise Mistake(f"{what} is '{word}'. Write file.py:NAME, such as gan.py:images.")
    if place.endswith(".py"):
        module = _file(place, what)
    else:
        sys.path.insert(0, "")  # a program has no such entry, unlike `python -m`
        module = importlib.import_module(place)
    if not hasattr(module, name):
        names = [found for found in vars(module) if not found.startswith("_")]
        raise Mistake(f"{what}: {place} has no '{name}'.{near(name, names)}")
    return getattr(module, name)


def is_maker(target: Any) -> bool:
    """Return whether a target is a class or a function, and not a system or data."""
    return inspect.isclass(target) or inspect.isfunction(target)


def _file(place: str, what: str) -> ModuleType:
    path = Path(place).resolve()
    if not path.is_file():
        files = [file.name for file in path.parent.glob("*.py")]
        raise Mistake(f"{what}: there is no file '{place}'.{near(path.name, files)}")
    if path not in modules:
        sys.path.insert(0, str(path.parent))  # the file may import its neighbours, as a script does
        spec = importlib.util.spec_from_file_location(path.stem, path)
        assert spec is not None and spec.loader is not None
        modules[path] = importlib.util.module_from_spec(spec)
        # A file named random.py does not replace `random`.
        sys.modules.setdefault(path.stem, modules[path])
        spec.loader.exec_module(modules[path])
    return modules[path]

"""Hides installed packages from this process, as if they had not been installed."""

import sys
from importlib.machinery import PathFinder


def hide(*names):
    """From now on, these top-level packages are found neither by `import` nor by `find_spec`."""

    class Finder(PathFinder):
        @classmethod
        def find_spec(cls, name, path=None, target=None):
            return (
                None if name.partition(".")[0] in names else super().find_spec(name, path, target)
            )

    sys.meta_path[:] = [Finder if finder is PathFinder else finder for finder in sys.meta_path]

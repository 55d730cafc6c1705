"""How a private name of Keras is looked up, and the error if this version of Keras lacks it.

Nothing fails silently:

- Names inside `with needed():`, and methods given to `check`, are looked up when mlsystem is
  imported. If one is missing, the import fails and names it.
- Attributes that Keras sets on its objects are read by `attribute`, which raises `Changed`.
- What mlsystem can do without gives one warning (`warn_of`), or None.
"""

import contextlib
import warnings
from collections.abc import Iterator
from typing import Any

import keras

OLDEST, NEWEST = "3.11", "3.16"  # the versions of Keras that all this was checked on


class Changed(RuntimeError):
    """This version of Keras lacks a private name that is used here."""

    def __init__(self, what: str) -> None:
        super().__init__(
            f"Keras {keras.__version__} has no {what}, which mlsystem needs. mlsystem was tested "
            f"with Keras {OLDEST} to {NEWEST}. Install a newer mlsystem, or one of these Keras."
        )


@contextlib.contextmanager
def needed() -> Iterator[None]:
    """Make the import of mlsystem fail if a private name looked up inside is missing."""
    try:
        yield
    except (ImportError, AttributeError) as error:
        raise ImportError(str(Changed(f"such module or name ({error})"))) from error


def check(owner: Any, *names: str) -> None:
    """Make the import of mlsystem fail if a class of Keras lacks one of these methods."""
    for name in names:
        if not hasattr(owner, name):
            raise ImportError(str(Changed(f"{owner.__name__}.{name}")))


def attribute(name: str, owner: Any, of: type = object) -> Any:
    """Return an attribute that Keras sets on its objects.

    If it is missing, return None unless `owner` is an instance of `of`.

    Raises:
        Changed: Keras no longer sets the attribute.
    """
    try:
        return getattr(owner, name)
    except AttributeError as error:
        if not isinstance(owner, of):
            return None
        raise Changed(f"attribute '{name}' in {type(owner).__name__}") from error


def version() -> str:
    """Say which version of Keras this is, and which versions are known to work."""
    return f"This is Keras {keras.__version__}, and mlsystem was tested with {OLDEST} to {NEWEST}."


def warn_of(what: str) -> None:
    """Warn of what does not work with this version of Keras."""
    warnings.warn(f"{what} {version()}", RuntimeWarning, stacklevel=2)

"""Arrays that are sharded over devices, in folders that Orbax writes: every process its part."""

import functools
from collections.abc import Callable
from pathlib import Path
from typing import Any

import jax


def is_sharded(value: Any) -> bool:
    """Return whether no device holds the whole of an array."""
    return isinstance(value, jax.Array) and not value.is_fully_replicated


def can_save() -> bool:
    """Return whether Orbax is installed. Arrays of several processes need it."""
    try:
        import orbax.checkpoint  # noqa: F401
    except ImportError:
        if jax.process_count() > 1:
            raise ImportError(
                "The weights are sharded over several processes. Checkpoints of them need Orbax: "
                "python -m pip install 'mlsystem[orbax]'."
            ) from None
        return False
    return True


def save(folder: Path, values: list[Any]) -> Callable[[], None]:
    """Start to write arrays, and return a function that waits until all processes are done.

    The arrays are copied first, so that training may go on. The folder gets its name at the end.
    """
    import orbax.checkpoint as orbax

    checkpointer = orbax.StandardCheckpointer()
    checkpointer.save(folder.absolute(), _named(values), force=True)
    return functools.cache(checkpointer.close)  # it waits, and closes once


def restore(folder: Path, like: list[Any]) -> list[Any]:
    """Read arrays.

    Args:
        folder: the folder.
        like: for each array, one with its shape, whose sharding it gets, on any devices.
    """
    import orbax.checkpoint as orbax

    struct: Any = jax.ShapeDtypeStruct
    abstract = [struct(x.shape, x.dtype, sharding=x.sharding) for x in like]
    with orbax.StandardCheckpointer() as checkpointer:
        found = checkpointer.restore(folder.absolute(), _named(abstract))
    return [found[name] for name in _named(like)]


def _named(values: list[Any]) -> dict[str, Any]:
    return {str(i): value for i, value in enumerate(values)}

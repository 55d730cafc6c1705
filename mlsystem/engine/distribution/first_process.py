"""What only the first process does: it writes files and draws progress."""

from collections.abc import Iterable
from typing import Any

import keras
from keras import callbacks as of_keras

from mlsystem.engine import engine

# Callbacks of Keras that write files, or draw.
_WRITE = (
    of_keras.CSVLogger,
    of_keras.ModelCheckpoint,
    of_keras.TensorBoard,
    of_keras.ProgbarLogger,
    of_keras.RemoteMonitor,
)


def is_here() -> bool:
    """Return whether this is the first process."""
    return engine.replicas.index == 0


def reads_together() -> bool:
    """Return whether all processes must read the state, for one of them to write it."""
    return not engine.replicas.reduces


def quiet(given: dict[str, Any]) -> None:
    """Let the other processes draw no progress, and write no files through Keras' callbacks."""
    if engine.replicas.count == 1 or "callbacks" not in given:
        return
    callbacks = given["callbacks"]
    if isinstance(callbacks, keras.callbacks.CallbackList):
        return
    found = keras.tree.flatten(callbacks or [])
    _check(found)
    if not is_here():
        given["verbose"] = 0
        given["callbacks"] = [c for c in found if not writes(c)]


def _check(callbacks: Iterable[Any]) -> None:
    if any(isinstance(_inner(c), of_keras.BackupAndRestore) for c in callbacks):
        raise ValueError(
            "BackupAndRestore restores one process only. With several processes use "
            "ml.callbacks.Checkpoint(folder) and fit(resume=folder)."
        )


def _inner(callback: Any) -> Any:
    return getattr(callback, "callback", callback)  # of an ml.callbacks.For


def writes(callback: Any) -> bool:
    """Return whether only the first process has a callback, because it writes or draws."""
    return isinstance(_inner(callback), _WRITE)


def on_any(value: bool) -> bool:
    """Return whether a value is true on one of several processes. Alone, return False."""
    return engine.replicas.count > 1 and engine.replicas.any(value)


def agree_to_stop(model: Any) -> None:
    """Stop training on all processes if one of them stops."""
    if engine.replicas.count > 1:
        model.stop_training = engine.replicas.any(bool(model.stop_training))


def decides(value: Any) -> Any:
    """Return the value that the first process has."""
    return value if engine.replicas.count == 1 else engine.replicas.collect(value)[0]


def check_same(value: str, what: str) -> None:
    """Raise an error if the processes have different values."""
    found = engine.replicas.collect(value)
    for index, other in enumerate(found):
        if other != found[0]:
            raise ValueError(
                f"{what} is {found[0]} on process 0 and {other} on process {index}. It must be "
                "the same on all processes."
            )

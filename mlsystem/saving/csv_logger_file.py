"""Restore the file of a `CSVLogger` when training resumes.

Keras' own logger empties the file when training starts. With `append=True` it keeps all rows, also
the rows after the checkpoint.
"""

from pathlib import Path
from typing import Any

import keras

_Logger = keras.callbacks.CSVLogger


def read(callback: Any) -> dict[str, Any] | None:
    """Return the content of the file and whether the header is not yet written.

    Return None without a file.
    """
    if not isinstance(callback, _Logger) or not Path(callback.filename).is_file():
        return None
    header = bool(callback.append_header and callback.writer is None)
    return {"content": Path(callback.filename).read_bytes(), "header": header}


def write(callback: Any, state: dict[str, Any] | None) -> None:
    """Restore the content of the file, and let the logger append to it."""
    if state is None or not isinstance(callback, _Logger):
        return
    callback.csv_file.close()
    Path(callback.filename).write_bytes(state["content"])
    keys, append = callback.keys, callback.append
    callback.append = True
    _Logger.on_train_begin(callback)  # opens the file
    callback.keys, callback.append = keys, append
    callback.append_header = state["header"]

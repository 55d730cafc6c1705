"""Detect on resume that the training data changed.

The saved values are the number of batches per epoch, the shapes of arrays, and a digest. The digest
is that of the first rows of arrays, or of the first batch of a data set that a resumed run reads
from its start. Data sets with a restored state, and generators, have no digest: their first batch
depends on that state.
"""

import hashlib
import warnings
from pathlib import Path
from typing import Any

import keras
import numpy as np
from keras import tree

from mlsystem import _keras
from mlsystem.data.batch import array
from mlsystem.data.data_state import DataState
from mlsystem.engine import engine

_ROWS = 8
_TEXTS = {
    "batches": "an epoch had {0} batches, and now has {1}",
    "shapes": "the arrays had the shapes {0}, and now {1}",
    "digest": "they begin with other values",
}


def of(parts: tuple[Any, ...], epoch: Any) -> dict[str, Any]:
    """Return the digest of x, y and sample_weight as passed to `fit`.

    Args:
        parts: x, y and sample_weight.
        epoch: Keras' iterator over the batches of an epoch.
    """
    shapes, first = None, None
    if _keras.kind_of_data(parts[0]) == "arrays":
        shapes = [list(map(int, leaf.shape)) for leaf in _leaves(parts)]
        first = _keras.data_adapter(*tree.map_structure(_head, parts), batch_size=_ROWS)
    elif _is_read_again(parts[0]):
        first = epoch.data_adapter
    batch = next(iter(_keras.batches(first)), None) if first is not None else None
    digest = None if batch is None else _digest(batch)
    return {"batches": epoch.num_batches, "shapes": shapes, "digest": digest}


def compare(path: Path, then: Any, now: dict[str, Any], again: dict[str, Any]) -> None:
    """Warn if the data differ from the data of a checkpoint, or differ in each pass."""
    if now != again:
        warnings.warn(
            f"Training resumed from '{path}' is not exact: the data set begins with another batch "
            "in each pass. Give arrays, or data that come in the same order each time. "
            "`tf.data.Dataset.shuffle` does so with reshuffle_each_iteration=False.",
            stacklevel=2,
        )
    elif differ := [
        text.format(then[n], now[n]) for n, text in _TEXTS.items() if _differ(then, now, n)
    ]:
        warnings.warn(
            f"The data differ from the data before '{path}': {'; '.join(differ)}. Training "
            "continues with the new data. To resume exactly, give the same data as before.",
            stacklevel=2,
        )


def _differ(then: Any, now: dict[str, Any], name: str) -> bool:
    before = (then or {}).get(name)
    return before is not None and now[name] not in (None, before)


def _head(leaf: Any) -> Any:
    return None if leaf is None else leaf[:_ROWS]


def _leaves(structure: Any) -> list[Any]:
    return [leaf for leaf in tree.flatten(structure) if leaf is not None]


def _is_read_again(data: Any) -> bool:
    """Return whether the data are a data set without a state to restore on resume."""
    if isinstance(data, (_keras.DataAdapter, keras.utils.PyDataset)):
        return False
    is_dataset = _keras.kind_of_data(data) == "dataset"
    is_known = engine.name == "torch" and _keras.is_torch_loader(data)  # its order is restored
    return is_dataset and DataState(data).pair is None and not is_known


def _digest(batch: Any) -> str:
    digest = hashlib.sha256()
    for leaf in _leaves(batch):
        found = np.asarray(array(leaf))
        digest.update(f"{found.shape} {found.dtype}".encode())
        digest.update(str(found.tolist()).encode() if found.dtype == object else found.tobytes())
    return digest.hexdigest()

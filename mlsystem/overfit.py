"""Training on the same few batches over and over: a model that can learn anything learns these."""

import warnings
from typing import Any

import keras

from mlsystem import _keras
from mlsystem.data import array, mapped


class Batches(keras.utils.PyDataset):
    """Batches that are the same, and in the same order, each time they are read.

    Args:
        batches: what a data set yields.
    """

    def __init__(self, batches: list[Any]) -> None:
        super().__init__()
        self.batches = batches

    def __len__(self) -> int:
        return len(self.batches)

    def __getitem__(self, index: int) -> Any:
        return self.batches[index]


def keep_first(given: dict[str, Any], count: int) -> None:
    """Changes the arguments of a `fit` so that it trains and validates on its first batches."""
    of_data = ("x", "y", "sample_weight", "batch_size", "class_weight")
    first = _keras.first_batches(count, **{name: given[name] for name in of_data})
    batches = [mapped(array, batch) for batch in first]
    if len(batches) < count:
        warnings.warn(
            f"fit got overfit={count}, and the data have {len(batches)} batches: it trains on all.",
            stacklevel=4,
        )
    data = Batches(batches)
    given |= {"x": data, "validation_data": _validation(given, data), "shuffle": False}
    given |= dict.fromkeys([*of_data[1:], "validation_batch_size", "validation_steps"])
    given |= {"validation_split": 0.0, "steps_per_epoch": None}


def _validation(given: dict[str, Any], data: Batches) -> Any:
    """The same batches in the place of each validation set."""
    if isinstance(sets := given["validation_data"], dict):
        return dict.fromkeys(sets, data)
    return data if sets is not None or given["validation_split"] else None

"""Check Keras' own arguments of `fit`, `evaluate` and `predict`: counts, splits, weights."""

import numbers
from collections.abc import Mapping
from typing import Any

from mlsystem._data_checks import check_data

_COUNTS = (
    *("batch_size", "steps_per_epoch", "steps", "validation_batch_size", "validation_steps"),
    *("validation_freq",),
)


def check(given: Mapping[str, Any], method: str) -> None:
    """Raise an error for counts, splits, weights and data that are not valid."""
    for name in _COUNTS:
        _check_count(name, given.get(name), method, least=1)
    for name in ("epochs", "initial_epoch"):
        _check_count(name, given.get(name), method, least=0)
    _check_others(given, method)
    for name in ("x", "y", "sample_weight"):
        check_data(given.get(name), f"`{name}` of {method}")
    data = given.get("validation_data")  # `validation` names a set that is None
    for part in data.values() if isinstance(data, Mapping) else [data]:
        check_data(part, f"`validation_data` of {method}")


def _check_count(name: str, value: Any, method: str, least: int) -> None:
    if value is None or (name == "validation_freq" and not isinstance(value, (int, float, str))):
        return  # Keras also takes a list of epochs
    if isinstance(value, bool) or not isinstance(value, numbers.Integral) or value < least:
        raise ValueError(f"{method} got {name}={value!r}; give a whole number from {least}.")


def _check_others(given: Mapping[str, Any], method: str) -> None:
    share, weights = given.get("validation_split"), given.get("class_weight")
    if share and not (isinstance(share, numbers.Real) and 0 < float(share) < 1):
        raise ValueError(f"{method} got validation_split={share!r}; give a share from 0 to 1.")
    if weights is not None and not isinstance(weights, Mapping):
        raise ValueError(f"{method} got class_weight={weights!r}; give a dict {{class: weight}}.")
    if isinstance(verbose := given.get("verbose"), str) and verbose != "auto":
        raise ValueError(f"{method} got verbose={verbose!r}; give 0, 1, 2 or 'auto'.")

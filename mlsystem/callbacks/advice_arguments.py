"""Check the arguments of `Advice`."""

import numbers
from typing import Any

from mlsystem._checks import is_count


def check(advice: Any) -> None:
    """Raise an error for arguments that are of the wrong kind."""
    if advice.samples is not None and not callable(advice.samples):
        raise ValueError(
            f"Advice got samples={advice.samples!r}. Give a function without arguments that "
            "returns samples, as `lambda: gan.generator(noise)`."
        )
    for name, may_be_off, is_share in (
        ("winning_loss", True, False),
        ("gradient_fall", False, False),
        ("sample_fall", True, True),
    ):
        value = getattr(advice, name)
        is_right = _is_number(value) and value > 0 and not (is_share and value >= 1)
        if not is_right and not (may_be_off and (value is None or value is False)):
            what = "a number between 0 and 1" if is_share else "a number above 0"
            off = ", or None" if may_be_off else ""
            raise ValueError(f"Advice got {name}={value!r}; give {what}{off}.")
    if not _are_limits(advice.update_ratios):
        raise ValueError(
            f"Advice got update_ratios={advice.update_ratios!r}; give a lower and an upper limit, "
            "as (1e-5, 1e-1), or None."
        )
    least = {"looks": 1}
    if advice.stalled_epochs is not None and advice.stalled_epochs is not False:
        least["stalled_epochs"] = 2
    for name, smallest in least.items():
        value = getattr(advice, name)
        if not is_count(value) or value < smallest:
            raise ValueError(f"Advice got {name}={value!r}; give a whole number from {smallest}.")


def _are_limits(value: Any) -> bool:
    if value is None or value is False:
        return True
    is_pair = isinstance(value, (tuple, list)) and len(value) == 2 and all(map(_is_number, value))
    return is_pair and 0 <= value[0] < value[1]


def _is_number(value: Any) -> bool:
    return isinstance(value, numbers.Real) and not isinstance(value, bool)

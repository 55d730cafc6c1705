"""The logs of a system in one short line: the sum of the losses, and one number for each loss."""

import math
import re
from collections.abc import Mapping, Sequence
from typing import Any

GAP = "  "
_MOST = 8  # losses that are shown one by one


def short(value: float) -> str:
    """Return a number with three significant digits.

    >>> short(2.3149), short(1240.2), short(0.00999999), short(0.00081), short(float("nan"))
    ('2.31', '1,240', '0.0100', '8.1e-4', 'nan')
    """
    if not math.isfinite(value) or value == 0:
        return f"{value:g}"
    power = int(f"{value:.2e}".partition("e")[2])
    if -2 <= power < 6:
        return f"{value:,.{max(0, 2 - power)}f}"
    return re.sub(r"\.?0*e([+-])0*", _exponent, f"{value:.1e}")


def _exponent(found: re.Match[str]) -> str:
    return "e" if found[1] == "+" else "e-"


def loss_logs(learner: Any) -> list[str]:
    """Return the logs of a system that are losses: one for each model, and those of no model."""
    owners = learner.logs.owners.items()
    return [log for log, owner in owners if owner.startswith("the loss ")]


def line(logs: Mapping[str, float], losses: Sequence[str], width: int) -> str:
    """Return the logs as one line.

    It holds the sum of the losses, each loss, and the sums of the validation sets. Many losses
    become their range, with the name of the largest. Where the width is too small, the losses get
    shorter first. Then validation sets are left out, the last ones first.

    Args:
        logs: all logs.
        losses: the names of the logs that are losses.
        width: number of columns.

    >>> line({"loss": 2.79, "a_loss": 2.31, "a_kl": 0.48}, ["a_loss"], 99)
    'loss 2.79  a 2.31'

    >>> many = {f"experts/{i}_loss": 1.8 + 0.1 * i for i in range(20)}
    >>> line({"loss": 41.2} | many, list(many), 99)
    'loss 41.2  experts 0-19: 1.80 to 3.70 (worst experts/19)'
    """
    each = {log.removesuffix("_loss"): logs[log] for log in losses if log in logs}
    total = _named({"loss": logs["loss"]} if "loss" in logs else {})
    summed = _named({n: v for n, v in logs.items() if _is_summed(n, losses)})
    forms = [[*total, *_named(each)]] if len(each) <= _MOST else []
    forms += [[*total, spread(each)]] if each else []
    sums = [summed[:count] for count in range(len(summed), -1, -1)]
    texts = [GAP.join([*form, *more]) for more in sums for form in [*forms, total]]
    return next((text for text in texts if len(text) <= width), texts[-1][:width])


def _named(values: Mapping[str, float]) -> list[str]:
    return [f"{name} {short(value)}" for name, value in values.items()]


def _is_summed(log: str, losses: Sequence[str]) -> bool:
    """Return whether a log is the sum of the losses on a validation set."""
    is_of_one = any(log.endswith(f"_{loss}") for loss in losses)
    is_sum = log.startswith("val_") and log.endswith("_loss") and log not in losses
    return is_sum and not is_of_one


def spread(values: Mapping[str, float]) -> str:
    """Return the range of some losses, with the name of the largest."""
    worst = max(values, key=lambda name: _rank(values[name]))
    low = min(values.values(), key=_rank)
    return f"{_group(list(values))}: {short(low)} to {short(values[worst])} (worst {worst})"


def _rank(value: float) -> float:
    return value if value == value else math.inf  # NaN is the worst


def _group(names: Sequence[str]) -> str:
    """Return a name for several losses, as `experts 0-19` for all of one list."""
    found = [re.fullmatch(r"(.*)/(\d+)", name) for name in names]
    lists = {match[1] if match else None for match in found}
    if len(lists) == 1 and (name := lists.pop()):
        return f"{name} 0-{len(names) - 1}"
    return f"{len(names)} losses"

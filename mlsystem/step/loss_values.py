"""`LossValues`: the losses and terms of one forward pass."""

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any


@dataclass
class LossValues:
    """The losses of one forward pass and their named terms, as scalars by name.

    Attributes:
        losses: the losses by name.
        terms: the named terms of the losses.
        owners: for each term, the name of its loss.
        sizes: for each name, the number of samples in its average. None if it is unknown.
        whole: whether these are all losses of the learner, not one loss passed to `minimize`.
        then: functions called once, when gradients of these losses are applied.
        before: variables that the forward pass may have assigned, with their earlier values.
        parts: the summands of such a loss: `encoder/kl`, and `encoder/` for regularizers.
    """

    losses: dict[str, Any] = field(default_factory=dict)
    terms: dict[str, Any] = field(default_factory=dict)
    owners: dict[str, str] = field(default_factory=dict)
    sizes: dict[str, Any] = field(default_factory=dict)
    whole: bool = True
    then: list[Callable[[], None]] = field(default_factory=list)
    before: list[tuple[Any, Any]] = field(default_factory=list)
    parts: dict[str, Any] = field(default_factory=dict)


@dataclass
class ForwardLosses:
    """The data that losses share during one forward pass. Each pass starts with a new object.

    Attributes:
        of_members: the losses of members by name, with their terms. They used the sample weights.
        taken: the losses of a model or system whose `loss` was called, for the system around it.
    """

    of_members: dict[str, Any] = field(default_factory=dict)
    taken: LossValues | None = None

"""What the losses of one forward pass are, and what they tell each other on the way."""

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any


@dataclass
class Taken:
    """The losses and their named terms in one forward pass, as scalars by the name they go by.

    `parts` are what such a loss is the sum of: `encoder/kl`, and `encoder/` for regularizers.
    `owners` says which loss each term is part of, `sizes` how many samples each was averaged over
    (None where nobody knows), and `whole` whether these are the losses of the learner, and not one
    that somebody else minimizes. `then` is called, once, when gradients of these losses are
    applied. `before` are variables that the forward pass may have assigned, with their values of
    before.
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
    """What losses leave for each other in one forward pass. Each pass begins with a new one.

    Attributes:
        of_members: the losses of members by name, with their terms.
        weighted: the names of those that have regarded the sample weights.
        taken: the losses of a model or a system whose `loss` was called, for the system around it.
    """

    of_members: dict[str, Any] = field(default_factory=dict)
    weighted: set[str] = field(default_factory=set)
    taken: Taken | None = None

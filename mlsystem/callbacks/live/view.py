"""`View`: what one update of `Live` shows, on any surface."""

from dataclasses import dataclass, field
from typing import Any

from mlsystem.callbacks.live.rows import Row


@dataclass
class View:
    """The state of a training run at one moment.

    Attributes:
        heading: name, epoch, batch, speed and time.
        rows: the models, and the losses of no model.
        first: the number of epochs that were over at the start.
        last: the number of epochs after which training ends.
        sentences: advice.
        film: the samples, or None.
    """

    heading: list[str]
    rows: list[Row]
    first: float = 0.0
    last: float = 1.0
    sentences: list[str] = field(default_factory=list)
    film: Any = None

"""What one backward pass computes."""

from dataclasses import dataclass

from mlsystem.routing.routing_table import Row


@dataclass
class Pass:
    """One backward pass: of the losses in a row, into the weights of some models.

    Attributes:
        row: the losses with their factors.
        models: the names of the models.
        loss: the one loss that it is taken for, by who balances several.
        looked_at: whether its gradients are only looked at, and move nothing.
    """

    row: Row
    models: list[str]
    loss: str | None = None
    looked_at: bool = False

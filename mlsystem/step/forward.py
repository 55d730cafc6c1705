"""The first half of a step: one forward pass, and the losses after it."""

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from mlsystem._errors import named_in_errors
from mlsystem._learner import KnownLosses, Learner
from mlsystem.data.batch import Batch
from mlsystem.step import context, reduction, replica_means
from mlsystem.step.loss_values import LossValues


def call_forward(learner: Learner, batch: Batch, training: bool, phase: int | None = None) -> Any:
    """Run `forward`. Pass `y`, `training` and `phase` if its signature names them."""
    model = learner.model
    offered = {"y": batch.y, "training": training, "phase": phase}
    named = model.call_signature_parameters
    return model(batch.x, **{name: v for name, v in offered.items() if name in named})


def forward_losses(
    learner: Learner, batch: Batch, training: bool, phase: int | None = None
) -> tuple[LossValues, Any]:
    """Run one forward pass and compute its losses. Return the losses and the outputs."""
    outputs = call_forward(learner, batch, training, phase)
    if outputs is None:
        cls = type(learner.model).__name__
        raise ValueError(f"{cls}.forward returned None. Does it end in a `return`?")
    taken = learner.find_losses(batch, outputs, training)
    if not taken.losses:
        raise ValueError(
            f"No model of '{learner.name}' has a loss, so there is nothing to minimize. Give a "
            "model a `loss` method or `loss=`, or override `compute_losses`."
        )
    known = learner.known  # an evaluation may compute fewer losses
    names = list(taken.losses) if training else known.names
    parts = list(taken.parts) if training or not known.parts else known.parts
    learner.known = KnownLosses(names, parts)
    return taken, outputs


@contextmanager
def keeping_known(learner: Learner) -> Iterator[None]:
    """Leave the known losses as they were, if any were known."""
    known = learner.known
    try:
        yield
    finally:
        if known.names:
            learner.known = known


def one_loss(loss_fn: Any, name: str) -> LossValues:
    """Compute the loss of a function without arguments, and store it under a name."""
    if not callable(loss_fn):
        raise TypeError(
            f"minimize got a {type(loss_fn).__name__}. Give a function without arguments that "
            "computes the loss: self.minimize(lambda: ..., models)."
        )
    with named_in_errors(f"The function of the loss '{name}', called without arguments"):
        found = loss_fn()
    loss, size = reduction.scalar(found, f"The loss '{name}'")
    return LossValues({name: loss}, sizes={name: size}, whole=False)


def observe(learner: Learner, data: Any, training: bool) -> None:
    """Run `forward` and log all losses and metrics, without an update."""
    this = learner.step
    batch = context.batch_of(this, data)
    taken, outputs = forward_losses(learner, batch, training)
    if this is not None:
        taken = replica_means.of_losses(taken, batch)
        this.ledger.count(taken, dict.fromkeys(taken.losses))
    learner.update_metrics(this, batch, outputs, None)

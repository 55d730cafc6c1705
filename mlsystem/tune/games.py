"""Tell which models play a game: their loss depends on others that do not lower it."""

import itertools
from typing import Any

import numpy as np
from keras import ops

from mlsystem import _learner
from mlsystem._learner import Learner
from mlsystem.diagnostics import gradient_report
from mlsystem.diagnostics.gradient_measurement import Influence
from mlsystem.routing import loss_weights


def players(learner: Learner, batch: Any) -> dict[str, str]:
    """Return the models in a game, each with another model that moves its loss.

    That model gets a gradient of the loss, and does not follow it, or follows it with another sign.
    A weight that is 0 now, as that of a schedule at its start, makes no game yet.

    Args:
        learner: the learner of a system that is set up.
        batch: a batch of the data.
    """
    if not _learner.is_system(learner.model) or len(learner.models()) < 2:
        return {}
    norms = Influence(learner)(batch)
    signs = _signs(learner, list(norms))
    pairs = itertools.permutations(learner.models(), 2)
    return {
        model: other
        for model, other in pairs
        if any(
            (norms[loss].get(other) or 0) > 0 and signs.get((loss, other), -sign) == -sign
            for (loss, name), sign in signs.items()
            if name == model and sign
        )
    }


def _signs(learner: Learner, losses: list[str]) -> dict[tuple[str, str], float]:
    """Return, for each loss that a model follows, whether it lowers (1) or raises (-1) it, or 0."""
    rows = learner.rows(losses)
    return {
        (loss, model): _sign(learner, rows[model].get(loss, (1.0,)))
        for loss, model in gradient_report.followed(learner, losses)
    }


def _sign(learner: Learner, factors: tuple[Any, ...]) -> float:
    weight = loss_weights.product(factors, 1.0, learner.batches_seen, ops.zeros(()))
    return float(np.sign(ops.convert_to_numpy(weight)))

"""Tell which models play a game: their loss depends on others that do not lower it."""

from typing import Any

from mlsystem import _learner
from mlsystem._learner import Learner
from mlsystem.diagnostics import gradient_report
from mlsystem.diagnostics.gradient_measurement import Influence


def players(learner: Learner, batch: Any) -> dict[str, str]:
    """Return the models in a game, each with another model that moves its loss.

    That model gets a gradient of the loss, and does not follow it, or follows it with another sign.

    Args:
        learner: the learner of a system that is set up.
        batch: a batch of the data.
    """
    if not _learner.is_system(learner.model) or len(learner.models()) < 2:
        return {}
    norms = Influence(learner)(batch)
    signs = _signs(learner, list(norms))
    found = {
        model: other
        for model, other in ((a, b) for a in learner.models() for b in learner.models() if a != b)
        if any(
            (norms[loss].get(other) or 0) > 0 and signs.get((loss, other)) != sign
            for (loss, name), sign in signs.items()
            if name == model
        )
    }
    return found


def _signs(learner: Learner, losses: list[str]) -> dict[tuple[str, str], int]:
    """Return, for each loss that a model follows, whether it lowers (1) or raises (-1) it."""
    rows = learner.rows(losses)
    return {
        (loss, model): -1 if _is_negative(rows[model].get(loss, ())) else 1
        for loss, model in gradient_report.followed(learner, losses)
    }


def _is_negative(factors: Any) -> bool:
    numbers = [factor for factor in factors if isinstance(factor, (int, float))]
    return sum(number < 0 for number in numbers) % 2 == 1

"""`Sweep`: the callback that raises the learning rate of one model from step to step."""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import keras
from keras import ops

from mlsystem import _learner
from mlsystem._learner import Learner
from mlsystem.callbacks.watched_step import WatchedStep, copies, update_ratio
from mlsystem.engine import engine
from mlsystem.routing import loss_weights
from mlsystem.tune import games
from mlsystem.tune.suggestion import is_worse

NOT_FINITE = "Its loss or gradient was not finite."
_SETTLED = 5  # updates after which the smoothed loss is more than the noise of a batch
_KEPT = 0.9  # of the smoothed loss that decides when a sweep ends


@dataclass
class Points:
    """What a sweep has measured.

    Attributes:
        rates: the rate of each update.
        losses: the loss on the batch after each update.
        ratios: the size of each update, as a part of the size of the weights.
        first: the loss before the first update.
        end: why the sweep ended, in words.
    """

    rates: list[float] = field(default_factory=list)
    losses: list[float] = field(default_factory=list)
    ratios: list[float] = field(default_factory=list)
    first: float = math.nan
    end: str = "It reached the last rate."


class Sweep(keras.callbacks.Callback):
    """Raises the learning rate of one model with each of its updates, and measures.

    Batches on which the model is not updated leave the rate as it is.

    Args:
        name: the model.
        rates: the rate of each update.
        may_end: whether a loss that is much worse ends the sweep.
        players: a dict for the models in a game, which is filled on the first batch. None for a
            sweep that does not look for them.
    """

    def __init__(
        self,
        name: str,
        rates: Sequence[float],
        may_end: bool = True,
        players: dict[str, str] | None = None,
    ) -> None:
        super().__init__()
        self.name, self.rates, self.may_end, self.players = name, rates, may_end, players
        self.points = Points()
        self.idle, self.smooth, self.weight = 0, 0.0, 0.0
        self.best = math.inf

    def on_train_begin(self, logs: Any = None) -> None:
        """Watch the training steps of this `fit`. See Keras."""
        self.learner = self.model._mlsystem
        self.optimizer = self.learner.optimizers[self.name]
        self.weights = self.learner.models()[self.name].trainable_weights
        self.model.train_function = WatchedStep(self.model.train_function, self)

    def step(self, function: Any, *given: Any) -> Any:
        """Run a training step with the next rate, and measure it."""
        points, given = self.points, self._look_for_games(given)
        rate = self.rates[min(len(points.ratios), len(self.rates) - 1)]
        self.optimizer.learning_rate = rate
        self.model.reset_metrics()  # so that the logs are of this step alone
        before, updates = copies(self.weights), self._updates()
        result = function(*given)
        skipped = self.learner.logs.skipped().get(self.name, 0) > 0
        if self._updates() == updates and not skipped:
            self._wait()
            return result
        self.idle = 0
        loss = math.nan if skipped else loss_of(self.learner, self.name)
        if self._add(loss) and len(points.ratios) < len(self.rates):
            points.rates.append(rate)
            points.ratios.append(update_ratio(before, copies(self.weights)))
        else:
            self.model.stop_training = True
        return result

    def _look_for_games(self, given: Any) -> Any:
        if self.players is None:
            return given
        batch, given = engine.peek(self.model, *given)
        if batch is not None:
            self.players |= games.players(self.learner, batch)
            self.may_end = self.may_end and self.name not in self.players
            self.players = None
        return given

    def _updates(self) -> int:
        return int(ops.convert_to_numpy(self.optimizer.iterations))

    def _wait(self) -> None:
        self.idle += 1
        turn = self.learner.setup.turns.get(self.name) if self.learner.setup else None
        if self.idle > 10 * len(self.rates) * (turn.every if turn else 1):
            self.points.end = f"{self.idle} batches in a row did not update it."
            self.model.stop_training = True

    def _add(self, loss: float) -> bool:
        """Add the loss on a batch, which shows the update before it. Return whether to continue."""
        points = self.points
        if not math.isfinite(loss):
            points.end = NOT_FINITE
            return False
        if points.ratios:
            points.losses.append(loss)
        else:
            points.first = loss
        self.smooth, self.weight = (
            _KEPT * self.smooth + (1 - _KEPT) * loss,
            _KEPT * self.weight + 1 - _KEPT,
        )
        smooth = self.smooth / self.weight
        self.best = min(self.best, smooth)
        is_smooth = len(points.losses) >= _SETTLED
        if self.may_end and is_smooth and is_worse(smooth, self.best, points.first):
            points.end = "Its loss was 4 times the best."
            return False
        return True


def loss_of(learner: Learner, name: str) -> float:
    """Return the loss that a model follows in the logs: its losses times their weights."""
    logs = learner.model.get_metrics_result()
    row = learner.rows(learner.known.names)[name] if _learner.is_system(learner.model) else {}
    found = [
        loss_weights.product(factors, 1.0, learner.batches_seen, logs[log]) * logs[log]
        for loss, factors in row.items()
        if (log := _log(logs, loss)) is not None
    ]
    value = sum(found[1:], found[0]) if found else logs.get(f"{name}_loss", logs["loss"])
    return float(ops.convert_to_numpy(value))


def _log(logs: Mapping[str, Any], loss: str) -> str | None:
    """Return the log of a loss, or of a term such as `encoder/kl`."""
    names = (f"{loss}_loss", loss.replace("/", "_"))
    return next((name for name in names if name in logs), None)

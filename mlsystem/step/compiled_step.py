"""The training step compiled once for each set of models that are updated on a batch."""

from collections.abc import Callable
from typing import Any

from mlsystem import engine
from mlsystem.metrics.running_means import loss_first
from mlsystem.preparation import configuration
from mlsystem.routing import update_schedule
from mlsystem.step import nonfinite


class ForFrozen:
    """Called by Keras' `fit` with each batch: compiles a step for each set of frozen weights."""

    def __init__(self, learner: Any) -> None:
        self.learner = learner
        self.steps: dict[Any, Callable[..., Any]] = {}
        self.optimizers: list[Any] = []  # those whose state the steps hold

    def __call__(self, *args: Any) -> Any:
        """One training step on what Keras' trainer hands over."""
        self._see_what_is_frozen()
        return self._step()(*args)

    def _step(self) -> Callable[..., Any]:
        kind = self.learner._run.due, self.learner._run.flags
        if kind not in self.steps:
            self.steps[kind] = engine.chosen.train_function(self.learner)
        return self.steps[kind]

    def _see_what_is_frozen(self) -> None:
        if configuration.flags(self.learner) != self.learner._run.flags:
            self.learner._retrain()
        now = list(self.learner.optimizers.values())
        if now != self.optimizers:  # one that knows thawed weights is another
            self.steps.clear()
            self.optimizers = now


class TrainFunction(ForFrozen):
    """Also picks the compiled step by the number of the batch, for the models of a system.

    A model that is not due costs nothing: its gradients are in none of the steps it is left out of.
    """

    def __call__(self, *args: Any) -> Any:
        """One training step on what Keras' trainer hands over."""
        run = self.learner._run
        self._see_what_is_frozen()
        run.due = self._due()
        try:
            result = self._visible(self._step()(*args))
            run.batches += self.learner.steps_per_execution  # at the end of the data there is none
            nonfinite.check(self.learner)
            return result
        finally:
            run.due = None

    def _due(self) -> frozenset[str] | None:
        run = self.learner._run
        if not run.turns:
            return None
        return update_schedule.due(run.turns, list(self.learner._models()), run.batches)

    def _visible(self, result: Any) -> Any:
        if isinstance(result, tuple):  # jax: (logs, state)
            return self._shown(result[0]), *result[1:]
        return self._shown(result)

    def _shown(self, logs: Any) -> Any:
        if not isinstance(logs, dict):
            return logs
        run = self.learner._run
        logs = loss_first(run.logs.visible(logs))
        run.shown |= logs
        return logs

"""The training step compiled once for each set of models that `update_every` makes due."""

from collections.abc import Callable
from typing import Any

from mlsystem import engine, schedule
from mlsystem.logs import loss_first


class TrainFunction:
    """Called by Keras' `fit` with each batch: picks the compiled step by the number of the batch.

    A model that is not due costs nothing: its gradients are in none of the steps it is left out of.
    """

    def __init__(self, system: Any) -> None:
        self.system = system
        self.steps: dict[frozenset[str] | None, Callable[..., Any]] = {}

    def __call__(self, *args: Any) -> Any:
        """One training step on what Keras' trainer hands over."""
        run = self.system._run
        run.due = self._due()
        try:
            if run.due not in self.steps:
                self.steps[run.due] = engine.chosen.train_function(self.system)
            result = self._visible(self.steps[run.due](*args))
            run.batches += 1  # only now: at the end of the data there was no batch
            return result
        finally:
            run.due = None

    def _due(self) -> frozenset[str] | None:
        run = self.system._run
        if not run.every:
            return None
        return schedule.due(run.every, list(self.system._models()), run.batches + 1)

    def _visible(self, result: Any) -> Any:
        if isinstance(result, tuple):  # jax: (logs, state)
            return self._shown(result[0]), *result[1:]
        return self._shown(result)

    def _shown(self, logs: Any) -> Any:
        if not isinstance(logs, dict):
            return logs
        run = self.system._run
        logs = loss_first(run.logs.visible(logs))
        run.shown |= logs
        return logs

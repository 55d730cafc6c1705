"""The training step compiled once for each set of models that are updated on a batch."""

from collections.abc import Callable
from typing import Any

from mlsystem import configure, engine, nonfinite, schedule
from mlsystem.logs import loss_first


class TrainFunction:
    """Called by Keras' `fit` with each batch: picks the compiled step by the number of the batch.

    A model that is not due costs nothing: its gradients are in none of the steps it is left out of.
    """

    def __init__(self, system: Any) -> None:
        self.system = system
        self.steps: dict[Any, Callable[..., Any]] = {}

    def __call__(self, *args: Any) -> Any:
        """One training step on what Keras' trainer hands over."""
        run = self.system._run
        self._see_what_is_frozen()
        run.due = self._due()
        try:
            kind = run.due, run.flags
            if kind not in self.steps:
                self.steps[kind] = engine.chosen.train_function(self.system)
            result = self._visible(self.steps[kind](*args))
            run.batches += self.system.steps_per_execution  # at the end of the data there is none
            nonfinite.check(self.system)
            return result
        finally:
            run.due = None

    def _see_what_is_frozen(self) -> None:
        system = self.system
        if configure.flags(system) == system._run.flags:
            return
        before = dict(system.optimizers)
        configure.retrain(system)
        if dict(system.optimizers) != before:
            self.steps.clear()

    def _due(self) -> frozenset[str] | None:
        run = self.system._run
        if not run.turns:
            return None
        return schedule.due(run.turns, list(self.system._models()), run.batches)

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

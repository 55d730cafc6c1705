"""The function that Keras' `fit` calls on a batch: compiles a step for the models due, once."""

import functools
from collections.abc import Callable
from typing import Any

from mlsystem import _keras
from mlsystem._learner import Learner, SystemBase
from mlsystem._long_work import announced
from mlsystem.engine import engine
from mlsystem.routing import update_schedule
from mlsystem.step import nonfinite
from mlsystem.step.running_means import loss_first


def trained(weights: Any) -> tuple[bool, ...]:
    """Return, for each weight, whether it is trained at present."""
    return tuple([weight.trainable for weight in weights])


def check_rehearsed(learner: Learner, step: str) -> None:
    """Raise an error if Keras' trainer did not call `_symbolic_build` before a step."""
    call = learner.call
    if call is not None and step == call.step and step not in learner.compiled.rehearsed:
        raise _keras.Changed("call of `_symbolic_build` before a step in its trainer")


def first(learner: Learner, what: str, step: Callable[..., Any], *args: Any, **given: Any) -> Any:
    """Run a step for the first time. If that takes long, say that it compiles."""
    how = engine.compiler(learner.model, step)
    whose = f"{what} of '{learner.name}'"
    work = f"Compiling the {whose} by {how}" if how else f"Running the first {whose}"
    with announced(work, learner.call is not None and learner.call.shows):
        return step(*args, **given)


def taken(batches: Any, steps: int) -> int:
    """Return how many batches a step has taken, of those that Keras' trainer gives it."""
    group: int = getattr(batches, "group", steps)  # of batches that `fit` groups
    return group - getattr(batches, "missing", 0)


class FirstTest:
    """The function that Keras' `evaluate` calls first. The step itself takes its place then.

    Args:
        learner: the learner of the model.
        step: the compiled step.
    """

    def __init__(self, learner: Learner, step: Callable[..., Any]) -> None:
        self.learner, self.step = learner, step

    def __call__(self, *args: Any) -> Any:
        """Run the first step."""
        model = self.learner.model
        if model.test_function is self:
            model.test_function = self.step
        return first(self.learner, "evaluation step", self.step, *args)


class TrainFunction:
    """The function that Keras' `fit` calls with each batch: one compiled step per frozen set."""

    def __init__(self, learner: Learner) -> None:
        self.learner = learner
        self.steps: dict[Any, Callable[..., Any]] = {}
        self.optimizers: list[Any] = []  # the optimizers whose state the steps hold

    def __call__(self, *args: Any) -> Any:
        """Run one training step with the arguments of Keras' trainer."""
        self._see_what_is_frozen()
        return self._step()(*args)

    def _step(self) -> Callable[..., Any]:
        kind = self.learner.compiled.due, self.learner.compiled.trained
        if kind not in self.steps:
            self.steps[kind] = engine.train_function(self.learner.model)
            return functools.partial(first, self.learner, "training step", self.steps[kind])
        return self.steps[kind]

    def _see_what_is_frozen(self) -> None:
        learner = self.learner
        if learner.setup and trained(learner.setup.weights) != learner.compiled.trained:
            learner.retrain()
        now = list(learner.optimizers.values())
        if now != self.optimizers:  # unfreezing weights makes a new optimizer
            self.steps.clear()
            self.optimizers = now


class SystemTrainFunction(TrainFunction):
    """The train function of a system: it also picks the compiled step by the batch number.

    A model that is not due costs nothing, because that step does not compute its gradients.
    """

    learner: SystemBase

    def __call__(self, *args: Any) -> Any:
        """Run one training step with the arguments of Keras' trainer."""
        compiled = self.learner.compiled
        self._see_what_is_frozen()
        compiled.due = self.due(compiled.batches)
        step = self._switched(args[-1]) or self._step()
        try:
            result = self._visible(step(*args))
            # At the end of the data the step raises, and no batch is counted.
            compiled.batches += taken(args[-1], self.learner.model.steps_per_execution)
            nonfinite.check(self.learner)
            return result
        finally:
            compiled.due = None

    def due(self, batch: int) -> frozenset[str] | None:
        """Return the models due on a batch, counted over all of training. None for all models."""
        setup = self.learner.setup
        if setup is None or not setup.turns:
            return None
        return update_schedule.due(setup.turns, list(self.learner.models()), batch)

    def variants(self) -> tuple[frozenset[str], ...]:
        """Return the sets of models that are ever due, if one program can hold a step for each."""
        setup = self.learner.setup
        if setup is None or not setup.turns or not engine.SWITCHES:
            return ()
        return update_schedule.variants(tuple(setup.turns.items()), tuple(self.learner.models()))

    def _switched(self, batches: Any) -> Callable[..., Any] | None:
        """Return the program of all steps, for the next group. None if steps do not differ."""
        every = self.variants()
        if not every or not hasattr(batches, "group"):
            return None
        kind = "all", self.learner.compiled.trained
        batch = self.learner.compiled.batches
        kinds = [every.index(self.due(batch + i) or frozenset()) for i in range(batches.group)]
        if kind in self.steps:
            return functools.partial(self.steps[kind], kinds=kinds)
        self.steps[kind] = step = engine.switched([self._made(models) for models in every])
        return functools.partial(first, self.learner, "training step", step, kinds=kinds)

    def _made(self, due: Any) -> Callable[..., Any]:
        compiled = self.learner.compiled
        before, compiled.due = compiled.due, due
        try:
            return engine.train_function(self.learner.model)
        finally:
            compiled.due = before

    def _visible(self, result: Any) -> Any:
        if isinstance(result, tuple):  # jax: (logs, state)
            return self._shown(result[0]), *result[1:]
        return self._shown(result)

    def _shown(self, logs: Any) -> Any:
        if not isinstance(logs, dict):
            return logs
        logs = loss_first(self.learner.logs.visible(logs))
        self.learner.compiled.shown |= logs
        return logs

"""`Step`: the state of the step that is running."""

import contextlib
import functools
import inspect
import operator
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any

from keras import tree

from mlsystem._data_checks import check_data
from mlsystem._learner import Learner
from mlsystem._learner import running as _running
from mlsystem.data.batch import Batch, make_batch
from mlsystem.engine import engine, select
from mlsystem.engine.distribution import batch_norm
from mlsystem.step import replica_means
from mlsystem.step.loss_ledger import LossLedger


@dataclass
class Step:
    """One train or test step of a learner, from its batch to its logs.

    Attributes:
        given: the batch as the data set yielded it.
        batch: the batch as tensors, converted once.
        trace: the trace of the backend in which the step runs.
        ledger: the losses of the step.
        depth: the number of losses whose gradients are being computed now.
        zeros: the zero gradients of weights that no loss reaches.
        touched: the names logged in this step.
        measured: the members whose metrics were updated.
        logs: the logs that Keras' `compute_metrics` returned, for a single model.
    """

    learner: Learner
    given: Any
    training: bool
    depth: int = 0
    zeros: list[Any] = field(default_factory=list)
    touched: dict[str, None] = field(default_factory=dict)
    measured: set[str] = field(default_factory=set)
    logs: dict[str, Any] | None = None

    def __post_init__(self) -> None:
        self.trace = engine.trace()
        self.batch = make_batch(self.given)
        self.leaves = tree.flatten(self.given)
        self.ledger = LossLedger(self.batch)


Running = Step | None  # None outside of a step


def running() -> Running:
    """Return the step that runs in this thread, or None."""
    return getattr(_running, "step", None)


def batch_of(this: Running, given: Any) -> Batch:
    """Return data as a batch. The data of the running step are not converted again."""
    if this is not None and given is this.given:
        leaves = tree.flatten(given)
        if len(leaves) == len(this.leaves) and all(map(operator.is_, leaves, this.leaves)):
            return this.batch  # no leaf was replaced
    check_data(given, "The batch given to a step")
    return make_batch(given)


def track(this: Step, name: str, owner: str, value: Any, weight: Any) -> None:
    """Add a value to the running mean of a name. The condition of an update may mask it."""
    this.learner.logs.update({name: (owner, value, weight)})
    this.touched[name] = None
    if this.learner.condition is not None:
        this.learner.logs.gated.add(name)


def when(learner: Learner, given: Any) -> contextlib.AbstractContextManager[None]:
    """Update, and log anything inside, only if a condition holds. None stands for no condition."""
    return contextlib.nullcontext() if given is None else _only_when(learner, given)


@contextlib.contextmanager
def _only_when(learner: Learner, given: Any) -> Iterator[None]:
    kept = engine.kept
    condition = select.scalar(given, "The condition `when` given to update")
    learner.condition = kept(replica_means.all_true(condition))
    before = [(variable, kept(variable.value)) for variable in learner.counted_variables()]
    try:
        yield
        select.keep(learner.condition, before, engine.changed)
    finally:
        learner.condition = None


def make(training: bool) -> Callable[[Any], Any]:
    """Make a user's `train_step(self, data)` or `test_step(self, data)` a step of its learner.

    A call of the inherited method inside such a step belongs to the same step.
    """

    def decorate(fn: Callable[[Any, Any], Any]) -> Callable[[Any, Any], Any]:
        _check_arguments(fn)

        @functools.wraps(fn)
        def step(self: Any, data: Any) -> Any:
            inner = step.__wrapped__  # a reloaded module replaces it
            learner = self._mlsystem
            return inner(self, data) if learner.step else _run(inner, learner, data, training)

        step.is_step = True  # type: ignore[attr-defined]
        return step

    return decorate


def _check_arguments(fn: Callable[..., Any]) -> None:
    """Raise an error if the step has the arguments of Keras' step on JAX, or of Lightning's."""
    try:
        inspect.signature(fn).bind(None, None)
    except TypeError:
        raise TypeError(
            f"{fn.__qualname__}{inspect.signature(fn)} is called with one batch. Define "
            f"`{fn.__name__}(self, data)`, on every backend, and update with "
            "`self.update(data, models)`."
        ) from None


def _run(fn: Callable[[Any, Any], Any], learner: Learner, given: Any, training: bool) -> Any:
    outer = getattr(_running, "step", None)
    with engine.step_scope(given):
        transform = learner.call.transform if learner.call is not None else None
        if transform is not None:
            given = transform.inside(given, training)
        _running.step = this = Step(learner, given, training)
        try:
            with replica_means.summed(learner.updated_by_hand):
                logs = fn(learner.model, given)
            if not isinstance(logs, Mapping):
                found = "None" if logs is None else f"a {type(logs).__name__}, and no logs"
                raise ValueError(
                    f"{type(learner.model).__name__}.{fn.__name__} returned {found}. "
                    "End it with `return self.get_metrics_result()`."
                )
            learner.close_step(this)
            batch_norm.average_statistics(learner)
            return logs
        finally:
            _running.step = outer

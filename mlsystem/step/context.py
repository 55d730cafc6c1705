"""What is known while one step runs, shared by the system and all the models in it."""

import contextlib
import functools
import inspect
import operator
import threading
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any

from keras import tree

from mlsystem._input_checks import check_data
from mlsystem._learner import Learner
from mlsystem.data.batch import Batch, make_batch
from mlsystem.engine import engine
from mlsystem.step.loss_ledger import LossLedger

_running = threading.local()


@dataclass
class Step:
    """One train or test step of a learner, from its batch to its logs.

    Attributes:
        given: what the data set yielded.
        batch: that as tensors, made once.
        trace: what the step itself is traced by.
        ledger: the losses of the step.
        depth: the number of losses that are being differentiated at present.
        zeros: the gradients that stand for none.
        touched: the names logged in this step.
        measured: the members whose metrics were updated.
        logs: what Keras' `compute_metrics` returned, for a model alone.
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

    def is_of(self, given: Any) -> bool:
        """Whether some data are those of this step, with nothing in them replaced."""
        if given is not self.given:
            return False
        leaves = tree.flatten(given)
        same = len(leaves) == len(self.leaves)
        return same and all(map(operator.is_, leaves, self.leaves))


def running() -> Step | None:
    """The step that is running in this thread."""
    return getattr(_running, "step", None)


def batch_of(learner: Learner, given: Any) -> Batch:
    """Data as a batch: made already where they are those of the step that is running."""
    this = learner.step
    if this is not None and this.is_of(given):
        return this.batch
    check_data(given, "The batch given to a step")
    return make_batch(given)


def check_branch(learner: Learner) -> None:
    """Refuses an update inside of what a backend traces by itself, as a branch."""
    this = learner.step
    if this is not None and this.trace != engine.trace():
        raise ValueError(
            f"'{learner.name}' is updated inside `ops.cond`, or a loop such as `ops.scan`, where "
            "weights cannot change. Update it outside, with the condition as `when=`: "
            "`self.update(data, when=condition)`. `minimize` and `apply_gradients` take `when` "
            "too. Write loops in Python."
        )


@contextlib.contextmanager
def differentiated(learner: Learner) -> Iterator[None]:
    """The context in which losses are computed to be differentiated."""
    this = learner.step
    if this is None:
        yield
        return
    this.depth += 1
    try:
        yield
    finally:
        this.depth -= 1


def track(
    learner: Learner, name: str, owner: str, value: Any, weight: Any, gated: bool = False
) -> None:
    """Adds a value to the running mean of a name; a gated one may have been kept out."""
    learner.logs.update(name, owner, value, weight)
    if this := learner.step:
        this.touched[name] = None
        if gated or learner.condition is not None:
            learner.logs.gated.add(name)


def make(training: bool) -> Callable[[Any], Any]:
    """Makes a user's `train_step(self, data)` or `test_step(self, data)` a step of its learner.

    Calls of the inherited method from inside one belong to the same step.
    """

    def decorate(fn: Callable[[Any, Any], Any]) -> Callable[[Any, Any], Any]:
        _check_arguments(fn)

        @functools.wraps(fn)
        def step(self: Any, data: Any) -> Any:
            inner = step.__wrapped__  # which a reloaded module replaces
            learner = self._mlsystem
            return inner(self, data) if learner.step else _run(inner, learner, data, training)

        step.is_step = True  # type: ignore[attr-defined]
        return step

    return decorate


def _check_arguments(fn: Callable[..., Any]) -> None:
    """Refuses a step that takes what Keras' step on JAX, or Lightning's, is given."""
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
        _running.step = learner.step = this = Step(learner, given, training)
        try:
            logs = fn(learner.model, given)
            if not isinstance(logs, Mapping):
                found = "None" if logs is None else f"a {type(logs).__name__}, and no logs"
                raise ValueError(
                    f"{type(learner.model).__name__}.{fn.__name__} returned {found}. "
                    "End it with `return self.get_metrics_result()`."
                )
            learner.close_step(this)
            return logs
        finally:
            _running.step, learner.step = outer, None

"""What is known while one step runs, shared by the system and all the models in it."""

import contextlib
import functools
import inspect
import operator
import threading
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any

from keras import ops, tree

from mlsystem import engine
from mlsystem._input_checks import check_data
from mlsystem.data.batch import Batch, make_batch
from mlsystem.losses.found import Taken

_running = threading.local()


@dataclass
class Step:
    """One train or test step of a learner, from its batch to its logs.

    `given` is what the data set yielded, and `batch` that as tensors, made once. `trace` is what
    the step itself is traced by.

    `counted` holds each loss and term, with whether it counts, once for each phase, `owners` says
    which loss a term is part of, and `sizes` how many samples each was averaged over. `gated` is
    what was counted under a condition. `pending` holds for each model the losses that its gradients
    were last taken of, and `zeros` are those of the gradients that stand for none. `depth` counts
    the losses that are being differentiated at present. `touched` are the names logged in this step
    and `measured` the members whose metrics were updated.
    """

    learner: Any
    given: Any
    training: bool
    trace: Any = field(init=False)
    batch: Batch = field(init=False)
    leaves: list[Any] = field(init=False)
    depth: int = 0
    zeros: list[Any] = field(default_factory=list)
    gated: set[str] = field(default_factory=set)
    counted: dict[str, list[tuple[Any, Any]]] = field(default_factory=dict)
    owners: dict[str, str] = field(default_factory=dict)
    sizes: dict[str, Any] = field(default_factory=dict)
    pending: dict[str, tuple[set[str], Taken]] = field(default_factory=dict)
    touched: dict[str, None] = field(default_factory=dict)
    measured: set[str] = field(default_factory=set)
    logs: dict[str, Any] | None = None

    def __post_init__(self) -> None:
        self.trace = engine.chosen.trace()
        self.batch = make_batch(self.given)
        self.leaves = tree.flatten(self.given)

    def is_of(self, given: Any) -> bool:
        """Whether some data are those of this step, with nothing in them replaced."""
        if given is not self.given:
            return False
        leaves = tree.flatten(given)
        same = len(leaves) == len(self.leaves)
        return same and all(map(operator.is_, leaves, self.leaves))

    def count(self, taken: Taken, losses: Mapping[str, Any]) -> None:
        """Counts some losses and their terms once more, each where its condition holds."""
        self.owners |= taken.owners
        self.sizes |= {name: size for name, size in taken.sizes.items() if size is not None}
        for name, value in [*taken.losses.items(), *taken.terms.items()]:
            loss = taken.owners.get(name, name)
            if loss in losses:
                self._count(name, value, losses[loss])

    def _count(self, name: str, value: Any, condition: Any) -> None:
        if condition is not None:
            self.gated.add(name)
            value = ops.where(condition, value, ops.zeros((), value.dtype))
        self.counted.setdefault(name, []).append((value, condition))

    def means(self) -> dict[str, tuple[Any, Any]]:
        """The mean of each loss and term over its phases, with its weight; empties the counts."""
        weights: dict[Any, Any] = {}
        means = {name: self._mean(name, weights) for name in self.counted}
        self.counted.clear()
        return means

    def _mean(self, name: str, weights: dict[Any, Any]) -> tuple[Any, Any]:
        values, conditions = zip(*self.counted[name], strict=True)
        total, size = sum(values[1:], values[0]), self.sizes.get(name)
        size = self.batch.size if size is None else size
        if all(condition is None for condition in conditions):
            return total / len(values) if len(values) > 1 else total, size
        one = ops.ones((), total.dtype)
        ones = [one if c is None else ops.cast(c, total.dtype) for c in conditions]
        if len(ones) == 1:
            key = id(conditions[0]), size if isinstance(size, int) else None
            if key not in weights or key[1] is None:
                weights[key] = ones[0] * ops.cast(size, total.dtype)
            return total, weights[key]
        count = sum(ones[1:], ones[0])
        counted = ops.cast(count > 0, total.dtype)
        return total / ops.maximum(count, 1), counted * ops.cast(size, total.dtype)


def running() -> Step | None:
    """The step that is running in this thread."""
    return getattr(_running, "step", None)


def of(learner: Any) -> Step | None:
    """The step that is running, if it is one of this learner."""
    current: Step | None = getattr(_running, "step", None)
    return current if current is not None and current.learner is learner else None


def batch_of(learner: Any, given: Any) -> Batch:
    """Data as a batch: made already where they are those of the step that is running."""
    this = of(learner)
    if this is not None and this.is_of(given):
        return this.batch
    check_data(given, "The batch given to a step")
    return make_batch(given)


def check_branch(learner: Any) -> None:
    """Refuses an update inside of what a backend traces by itself, as a branch."""
    this = of(learner)
    if this is not None and this.trace != engine.chosen.trace():
        raise ValueError(
            f"'{learner.name}' is updated inside `ops.cond`, or a loop such as `ops.scan`, where "
            "weights cannot change. Update it outside, with the condition as `when=`: "
            "`self.update(data, when=condition)`. `minimize` and `apply_gradients` take `when` "
            "too. Write loops in Python."
        )


@contextlib.contextmanager
def differentiated(learner: Any) -> Iterator[None]:
    """The context in which losses are computed to be differentiated."""
    this = of(learner)
    if this is None:
        yield
        return
    this.depth += 1
    try:
        yield
    finally:
        this.depth -= 1


def make(training: bool) -> Callable[[Any], Any]:
    """Makes a user's `train_step(self, data)` or `test_step(self, data)` a step of its learner.

    Calls of the inherited method from inside one belong to the same step.
    """

    def decorate(fn: Callable[[Any, Any], Any]) -> Callable[[Any, Any], Any]:
        _check_arguments(fn)

        @functools.wraps(fn)
        def step(self: Any, data: Any) -> Any:
            inner = step.__wrapped__  # which a reloaded module replaces
            return inner(self, data) if of(self) else _run(inner, self, data, training)

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


def _run(fn: Callable[[Any, Any], Any], learner: Any, given: Any, training: bool) -> Any:
    outer = running()
    with engine.chosen.step_scope(given):
        if learner._run.transform is not None:
            given = learner._run.transform.inside(given, training)
        _running.step = this = Step(learner, given, training)
        try:
            logs = fn(learner, given)
            if not isinstance(logs, Mapping):
                found = "None" if logs is None else f"a {type(logs).__name__}, and no logs"
                raise ValueError(
                    f"{type(learner).__name__}.{fn.__name__} returned {found}. "
                    "End it with `return self.get_metrics_result()`."
                )
            learner._close_step(this)
            return logs
        finally:
            _running.step = outer


def any_weight(weights: list[Any]) -> Any:
    """The weight of a sum that counts where any of its parts does."""
    weight = weights[0]
    for other in weights[1:]:
        largest = max if isinstance(weight, int) and isinstance(other, int) else ops.maximum
        weight = weight if other is weight else largest(weight, other)
    return weight

"""The compiled step on JAX: it reads its state from the variables and writes it back in each call.

A number of steps per execution is one program too: a scan over their stacked batches. Groups of
batches, as `fit` makes them, run in a loop over a window of them: see `looped_step.py`.
"""

import contextlib
import functools
import itertools
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import Any

import jax
import keras
import numpy as np

from mlsystem import _keras
from mlsystem.engine.jax.looped_step import LoopedStep, strong


class CompiledStep:
    """One step as Keras' jax trainer calls it.

    The trainer passes a state. This step ignores it and keeps the state in the variables, so that
    callbacks can assign variables and call models between two steps.
    """

    def __init__(
        self, system: Any, step: Callable[[Any], Any], state: list[Any], no_state: Any
    ) -> None:
        self.state, self.no_state = state, no_state
        self.steps = system.steps_per_execution
        self.learner, self.due = system._mlsystem, system._mlsystem.compiled.due
        self.remainders: dict[Any, int] = {}
        self.step: Any = stateless(step, self.state)
        self.scan: Any = None
        self.loop: LoopedStep | None = None
        if system.jit_compile and not system.run_eagerly:
            shardings = _shardings(self.state)
            compiled = functools.partial(jax.jit, donate_argnums=0, out_shardings=shardings)
            self.step, self.scan = compiled(self.step), compiled(_scanned(self.step))
            self.loop = LoopedStep([self])

    def __call__(self, _: Any, batches: Any) -> Any:
        """Run the steps. Return the logs of the last and an empty state."""
        if self.loop is not None and hasattr(batches, "runs"):
            return run_loop(self.loop, self.state, batches), self.no_state
        drawn = [next(batches), *itertools.islice(batches, self.steps - 1)]
        for program, data in self._executions(drawn):
            logs, values = program(_own_values(self.state), data)
            _keras.set_values(self.state, values)
        return logs, self.no_state

    def _executions(self, batches: list[Any]) -> Iterable[tuple[Any, Any]]:
        """List the programs to run, each with its data."""
        if len(batches) == 1 or self.scan is None:
            return [(self.step, data) for data in batches]
        runs = [(shapes, list(run)) for shapes, run in itertools.groupby(batches, _shapes)]
        return itertools.chain.from_iterable(self._of_run(*run) for run in runs)

    def _of_run(self, shapes: Any, run: list[Any]) -> list[tuple[Any, Any]]:
        """Make one scan of a run of batches with equal shapes, or a step of each."""
        if self._is_scanned(shapes, len(run)):
            return [(self.scan, jax.tree.map(_stacked, *run))]
        return [(self.step, data) for data in run]

    def _is_scanned(self, shapes: Any, length: int) -> bool:
        # Each length is a program to compile: one for full runs, one for the rest of an epoch.
        if length in (1, self.steps):
            return length > 1
        return self.remainders.setdefault(shapes, length) == length

    def trace(self, values: list[Any], data: Any) -> Any:
        """Trace the step for a batch."""
        with self._of_its_models():
            return self.step.trace(values, data)

    def run(self, values: list[Any], data: Any) -> Any:
        """Run the step on a batch. Return the logs and the new values."""
        with self._of_its_models():
            return self.step(values, data)

    @contextlib.contextmanager
    def _of_its_models(self) -> Iterator[None]:
        """Let the models be due in this context that were due when the step was made."""
        compiled = self.learner.compiled
        before, compiled.due = compiled.due, self.due
        try:
            yield
        finally:
            compiled.due = before

    def lower(self, data: Any) -> Any:
        """Lower the step for a batch with JAX, to look at it."""
        return self.step.lower(_own_values(self.state), data)


class SwitchedStep:
    """Compiled steps for different models, as one program. It runs one of them on each batch.

    Args:
        steps: the compiled steps, with the same state.
    """

    def __init__(self, steps: Sequence[CompiledStep]) -> None:
        self.state, self.no_state = steps[0].state, steps[0].no_state
        self.loop = LoopedStep(steps)

    def __call__(self, _: Any, batches: Any, kinds: Sequence[int]) -> Any:
        """Run a group of batches, each with the step of a number. Return logs and empty state."""
        return run_loop(self.loop, self.state, batches, kinds), self.no_state


def run_loop(loop: LoopedStep, state: list[Any], batches: Any, kinds: Sequence[int] = ()) -> Any:
    """Run a group of batches, which is one run of equal shapes or several. Return the logs."""
    every: dict[str, Any] = {}
    runs, start = batches.runs(), time.perf_counter()
    kinds = kinds or [0] * batches.group
    for first, last in runs:
        values = _own_values(state)
        loop.prepare(values, batches)
        logs, values = loop(values, batches, kinds[first:last])
        _keras.set_values(state, values)
        every |= logs if isinstance(logs, dict) else {}
    batches.most = loop.see(start, batches.group, logs)
    return every or logs


def stateless(step: Callable[[Any], Any], state: list[Any]) -> Callable[..., Any]:
    """Make a step a function of the values of its state and a batch: to logs and new values."""

    def pure(values: list[Any], data: Any) -> Any:
        with keras.StatelessScope(zip(state, values, strict=True), collect_losses=True) as scope:
            logs = step(data)
            return logs, [strong(scope.get_current_value(variable)) for variable in state]

    return pure


def _scanned(step: Callable[..., Any]) -> Callable[..., Any]:
    """Make a step one scan over stacked batches, with the logs of the last."""

    def scanned(values: list[Any], batches: Any) -> Any:
        values, logs = jax.lax.scan(lambda v, data: step(v, data)[::-1], values, batches)
        return jax.tree.map(lambda log: log[-1], logs), values

    return scanned


def _shapes(data: Any) -> Any:
    leaves, structure = jax.tree.flatten(data)
    return structure, tuple((np.shape(leaf), getattr(leaf, "dtype", type(leaf))) for leaf in leaves)


_stacked_on_device = jax.jit(jax.numpy.stack)


def _stacked(*leaves: Any) -> Any:
    # Stack arrays of the host there: a program takes one array faster than many.
    on_host = all(isinstance(leaf, np.ndarray) for leaf in leaves)
    return np.stack(leaves) if on_host else _stacked_on_device(leaves)


def _shardings(state: list[Any]) -> Any:
    if keras.distribution.distribution() is None:
        return None
    return None, [variable.value.sharding for variable in state]


def _own_values(state: list[Any]) -> list[Any]:
    # A buffer can be donated only once, and `a.assign(b.value)` makes two variables share one.
    values = _keras.values(state)
    if len(set(map(id, values))) == len(values):
        return values
    seen: set[int] = set()
    for i, value in enumerate(values):
        values[i] = jax.numpy.copy(value) if id(value) in seen else value
        seen.add(id(value))
    return values

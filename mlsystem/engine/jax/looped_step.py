"""A step in a loop over a window of batches: one program runs any number of steps.

The number of steps is an argument of the program. So the way in which steps are grouped changes no
bit of the result. Where steps differ, as with `update_every`, the program holds all kinds of steps,
and another argument says which of them runs on which batch.
"""

import math
import time
from collections.abc import Callable, Iterator, Sequence
from typing import Any

import jax
import numpy as np
from jax.extend.core import jaxpr_as_fun

from mlsystem.engine.group_growth import GroupGrowth

MOST_BYTES = 10**9  # arrays up to this size are kept on an accelerator
MOST_PRODUCTS = 5 * 10**7  # multiplications of a step on a CPU; longer steps were slower in a loop

Program = Callable[..., Any]


class LoopedStep:
    """The programs that run steps in a loop, one for each shape of a window.

    Args:
        steps: the kinds of compiled steps. Their methods `run` and `trace` take the values of the
            state and a batch.
    """

    def __init__(self, steps: Sequence[Any]) -> None:
        self.steps = steps
        self.programs: dict[Any, Program | None] = {}
        self.names: dict[Any, list[list[str]]] = {}  # of the logs, for each kind of step
        self.growth = GroupGrowth()

    def __call__(self, values: list[Any], batches: Any, kinds: Sequence[int]) -> Any:
        """Run the next batches, each with a kind of step. Return the logs and the values."""
        shapes = _shapes(batches)
        program, count = self.programs[shapes], len(kinds)
        if program is None or not batches.ready():
            return self._one_by_one(values, batches, kinds)
        window, first = batches.current()
        which = np.zeros(batches.size, "int32")
        which[:count] = kinds
        logs, values = program(values, window, which, np.int32(first), np.int32(count))
        batches.move(count)
        return self._of_kinds(logs, shapes, kinds), values

    def _one_by_one(self, values: list[Any], batches: Any, kinds: Sequence[int]) -> Any:
        every: dict[str, Any] = {}
        for kind in kinds:
            logs, values = self.steps[kind].run(values, next(batches))
            every |= logs if isinstance(logs, dict) else {}
        return every or logs, values

    def _of_kinds(self, logs: Any, shapes: Any, kinds: Sequence[int]) -> Any:
        """Return the logs without those of the kinds of steps that did not run."""
        if len(self.steps) == 1:
            return logs
        names = {name for kind in set(kinds) for name in self.names[shapes][kind]}
        return {name: log for name, log in logs.items() if name in names}

    def see(self, start: float, count: int, logs: Any) -> int:
        """Return the most batches of the next group: more if one of the longest was short."""
        if not any(self.programs.values()):
            return 1
        self.growth.see(count, lambda: _seconds(start, logs))
        return self.growth.most

    def prepare(self, values: list[Any], batches: Any) -> None:
        """Make the program for the shapes of some batches, from one trace of each kind of step."""
        shapes = _shapes(batches)
        if shapes in self.programs:
            return
        self.growth.is_new, self.programs[shapes] = True, None
        if batches.size > 1:
            traces = [step.trace(values, batches.peek()) for step in self.steps]
            is_wanted = batches.insists or jax.default_backend() != "cpu"
            fits = len(traces) == 1 or _is_alike([trace.out_info[0] for trace in traces])
            if fits and (is_wanted or all(_is_light(trace.jaxpr.jaxpr) for trace in traces)):
                self.programs[shapes] = jax.jit(_looped(traces), donate_argnums=0)
                self.names[shapes] = [list(trace.out_info[0]) for trace in traces[1:] and traces]


def _seconds(start: float, logs: Any) -> float:
    """Return the time since a start, once the logs have their numbers."""
    jax.block_until_ready(logs)  # type: ignore[no-untyped-call]
    return time.perf_counter() - start


def _shapes(batches: Any) -> Any:
    leaves, structure = jax.tree.flatten(batches.arrays)
    each = tuple([(leaf.shape[1:], leaf.dtype.str) for leaf in leaves])
    return structure, each, batches.batch_size, batches.size, batches.insists


def _is_alike(logs: Sequence[Any]) -> bool:
    """Return whether the logs of several kinds of steps are dicts that can be joined."""
    if not all(isinstance(one, dict) for one in logs):
        return False
    every = [(name, log.shape, log.dtype) for one in logs for name, log in one.items()]
    return len(set(every)) == len({name for name, *_ in every})


def _looped(traces: Sequence[Any]) -> Program:
    """Make traced steps a loop over a number of batches of a window, with the latest logs."""
    steps = [_step(trace) for trace in traces]
    every = traces[0].out_info[0]
    for trace in traces[1:]:
        every = every | trace.out_info[0]

    def looped(values: list[Any], window: Any, kinds: Any, first: Any, count: Any) -> Any:
        def one(i: Any, carry: Any) -> Any:
            batch = jax.tree.map(lambda leaf: _row(leaf, first + i), window)
            if len(steps) == 1:
                return steps[0](*carry, batch)
            return jax.lax.switch(kinds[i], steps, *carry, batch)

        logs = jax.tree.map(lambda log: jax.numpy.zeros(log.shape, log.dtype), every)
        return jax.lax.fori_loop(0, count, one, (logs, [strong(value) for value in values]))

    return looped


def _step(traced: Any) -> Callable[..., Any]:
    """Make a traced step a function of all logs, values and a batch, to new logs and values."""
    step, outputs = jaxpr_as_fun(traced.jaxpr), jax.tree.structure(traced.out_info)

    def one(logs: Any, values: list[Any], batch: Any) -> Any:
        found = [strong(leaf) for leaf in step(*jax.tree.leaves((values, batch)))]
        new, values = jax.tree.unflatten(outputs, found)
        return logs | new if isinstance(new, dict) else new, values

    return one


def _row(window: Any, index: Any) -> Any:
    return jax.lax.dynamic_index_in_dim(window, index, keepdims=False)


def strong(value: Any) -> Any:
    """Return a value of no weak type, as a Python number has. JAX would compile again for one."""
    value = jax.numpy.asarray(value)  # older versions of JAX keep a number of a log as it is
    return jax.lax.convert_element_type(value, value.dtype)


def _is_light(jaxpr: Any) -> bool:
    """Return whether a loop on a CPU is worth it: few products, and no convolution.

    XLA computes a convolution inside a loop on a CPU some eight times slower.
    """
    products = 0
    for equation, times in _equations(jaxpr):
        if equation.primitive.name == "conv_general_dilated":
            return False
        if equation.primitive.name == "dot_general":
            products += times * _products(equation)
    return products <= MOST_PRODUCTS


def _products(equation: Any) -> int:
    (contracted, _), _ = equation.params["dimension_numbers"]
    shape = equation.invars[0].aval.shape
    return math.prod(equation.outvars[0].aval.shape) * math.prod(shape[i] for i in contracted)


def _equations(jaxpr: Any, times: int = 1) -> Iterator[tuple[Any, int]]:
    """Yield all equations of a traced function, each with how often a scan runs it."""
    for equation in jaxpr.eqns:
        yield equation, times
        inside = times * equation.params.get("length", 1)
        for value in jax.tree.leaves(list(equation.params.values())):
            inner = getattr(value, "jaxpr", value)
            if hasattr(inner, "eqns"):
                yield from _equations(inner, inside)


def gatherer(arrays: Any) -> Callable[[Any], Any]:
    """Return a function of row numbers that gathers these rows of arrays on the device."""
    size = sum(leaf.nbytes for leaf in jax.tree.leaves(arrays))
    if jax.default_backend() == "cpu" or size > MOST_BYTES:
        return lambda rows: jax.device_put(jax.tree.map(lambda leaf: leaf[rows], arrays))
    placed = jax.device_put(arrays)
    return lambda rows: _gathered(placed, rows)


@jax.jit
def _gathered(arrays: Any, rows: Any) -> Any:
    return jax.tree.map(lambda leaf: jax.numpy.take(leaf, rows, axis=0, mode="clip"), arrays)

"""A step in a loop over a window of batches: one program runs any number of steps.

The number of steps is an argument of the program. So the way in which steps are grouped changes no
bit of the result.
"""

import math
import time
from collections.abc import Callable, Iterator
from typing import Any

import jax
import numpy as np
from jax.extend.core import jaxpr_as_fun

MOST_BYTES = 10**9  # arrays up to this size are kept on an accelerator
MOST_PRODUCTS = 5 * 10**7  # multiplications of a step on a CPU; longer steps were slower in a loop
LONG = 0.02  # seconds from which on a group of steps is long enough

Program = Callable[..., Any]


class LoopedStep:
    """The programs that run a step in a loop, one for each shape of a window.

    Args:
        step: the compiled step, a function of the values of its state and a batch.
    """

    def __init__(self, step: Any) -> None:
        self.step = step
        self.programs: dict[Any, Program | None] = {}
        self.most = 1  # the number of steps of a group, which grows while groups are short
        self.is_new = True

    def __call__(self, values: list[Any], batches: Any) -> Any:
        """Run the next group of batches. Return the logs of the last, and the values."""
        program, count = self.programs[_shapes(batches)], batches.group
        if program is None or not batches.ready():
            batches.most = 1 if program is None else batches.most
            return self._one_by_one(values, batches)
        window, first = batches.current()
        start = time.perf_counter()
        logs, values = program(values, window, np.int32(first), np.int32(count))
        batches.move(count)
        self._see(start, count, logs)
        batches.most = self.most
        return logs, values

    def _one_by_one(self, values: list[Any], batches: Any) -> Any:
        for _ in range(batches.group):
            logs, values = self.step(values, next(batches))
        return logs, values

    def _see(self, start: float, count: int, logs: Any) -> None:
        """Let the next group be longer, if one of the longest so far was short."""
        if count == self.most and not self.is_new:
            jax.block_until_ready(logs)  # type: ignore[no-untyped-call]
            self.most *= 1 + (time.perf_counter() - start < LONG)
        self.is_new = False

    def prepare(self, values: list[Any], batches: Any) -> None:
        """Make the program for the shapes of some batches, from one trace of the step."""
        shapes = _shapes(batches)
        if shapes in self.programs:
            return
        self.is_new, self.programs[shapes] = True, None
        if batches.size > 1:
            traced = self.step.trace(values, batches.peek())
            is_wanted = batches.insists or jax.default_backend() != "cpu"
            if is_wanted or _is_light(traced.jaxpr.jaxpr):
                self.programs[shapes] = jax.jit(_looped(traced), donate_argnums=0)


def _shapes(batches: Any) -> Any:
    leaves, structure = jax.tree.flatten(batches.arrays)
    each = tuple([(leaf.shape[1:], leaf.dtype.str) for leaf in leaves])
    return structure, each, batches.batch_size, batches.size, batches.insists


def _looped(traced: Any) -> Program:
    """Make a traced step a loop over a number of batches of a window, with the last logs."""
    step, outputs = jaxpr_as_fun(traced.jaxpr), jax.tree.structure(traced.out_info)

    def looped(values: list[Any], window: Any, first: Any, count: Any) -> Any:
        def one(i: Any, carry: Any) -> Any:
            batch = jax.tree.map(lambda leaf: _row(leaf, first + i), window)
            found = step(*jax.tree.leaves((carry[1], batch)))
            return jax.tree.unflatten(outputs, [strong(leaf) for leaf in found])

        logs = jax.tree.map(lambda log: jax.numpy.zeros(log.shape, log.dtype), traced.out_info[0])
        return jax.lax.fori_loop(0, count, one, (logs, [strong(value) for value in values]))

    return looped


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

"""The condition `when` of an update: decided inside the compiled step, by selecting values.

A branch with an update inside works on TensorFlow and in eager torch, and leaks tracers on JAX.
"""

import contextlib
from collections.abc import Iterator
from typing import Any

from keras import ops

from mlsystem import step


@contextlib.contextmanager
def gate(learner: Any, when: Any) -> Iterator[None]:
    """Lets what happens inside change weights, optimizers and metrics only `when`."""
    this = step.of(learner)
    if when is None:
        yield
        return
    condition = _condition(when)
    if this:
        this.gate = condition
    state = learner._gated_variables()
    before = [ops.copy(v.value) for v in state]
    try:
        yield
        for variable, old in zip(state, before, strict=True):
            variable.assign(ops.where(condition, variable.value, old))
    finally:
        if this:
            this.gate = None


def _condition(when: Any) -> Any:
    when = ops.convert_to_tensor(when)
    if len(when.shape) != 0:
        raise ValueError(
            f"update got a condition `when` of shape {tuple(when.shape)}. "
            "Give one boolean, a scalar."
        )
    return ops.cast(when, "bool")

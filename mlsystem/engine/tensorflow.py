"""The engine on TensorFlow: state in place, one tape, `gradient` once per distinct row."""

import contextlib
from collections.abc import Callable
from typing import Any

import numpy as np
import tensorflow as tf
from keras import ops, tree

from mlsystem import _keras


def gradients(fn: Callable[[], Any], plan: Callable[[Any], Any], state: list[Any]) -> Any:
    """See `mlsystem.engine`."""
    with tf.GradientTape(persistent=True) as tape:
        losses, aux = fn()
        rows = [(_total(losses, weights), variables) for weights, variables in plan(losses)]
    return losses, aux, [_backward(tape, total, variables) for total, variables in rows]


def _total(losses: dict[str, Any], weights: dict[str, Any]) -> Any:
    return sum(losses[name] * weight for name, weight in weights.items())


def _backward(tape: Any, total: Any, variables: list[Any]) -> list[Any]:
    return tape.gradient(total, [variable.value for variable in variables])


def grad(fn: Callable[[Any], Any]) -> Callable[[Any], Any]:
    """See `mlsystem.engine`."""

    def gradient(x: Any) -> Any:
        # Tensors of their own: a use of `x` that does not come through the argument is constant.
        x = tree.map_structure(lambda leaf: tf.identity(ops.convert_to_tensor(leaf)), x)
        with tf.GradientTape() as tape:
            tape.watch(tree.flatten(x))
            total = ops.sum(fn(x))
        found = tape.gradient(
            total, tree.flatten(x), unconnected_gradients=tf.UnconnectedGradients.ZERO
        )
        return tree.pack_sequence_as(x, found)

    return gradient


def apply(optimizer: Any, gradients: list[Any], weights: list[Any]) -> None:
    """See `mlsystem.engine`."""
    optimizer.apply(gradients, weights)


def step_scope(data: Any) -> contextlib.AbstractContextManager[Any]:
    """See `mlsystem.engine`."""
    # At the end of the data, what does not wait for a batch runs once more: nothing may count it.
    return tf.control_dependencies([leaf for leaf in tree.flatten(data) if tf.is_tensor(leaf)])


def random_state() -> Callable[[], None]:
    """See `mlsystem.engine`."""
    state = np.random.get_state()
    return lambda: np.random.set_state(state)


def train_function(system: Any) -> Callable[..., Any]:
    """See `mlsystem.engine`."""
    return _keras.made_function(system, "train")


def test_function(system: Any) -> Callable[..., Any]:
    """See `mlsystem.engine`."""
    return _keras.made_function(system, "test")


def predict_scope(system: Any) -> contextlib.AbstractContextManager[Any]:
    """See `mlsystem.engine`."""
    return contextlib.nullcontext()


def rehearse(step: Any, data: Any, state: list[Any]) -> None:
    """See `mlsystem.engine`."""
    before = [tf.identity(variable.value) for variable in state]
    try:
        step(data)
    finally:
        for variable, value in zip(state, before, strict=True):
            variable.assign(value)


def runs_ahead() -> bool:
    """See `mlsystem.engine`."""
    return True


def as_layer(net: Any) -> Any:
    """See `mlsystem.engine`."""
    return net

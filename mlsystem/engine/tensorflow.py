"""The engine on TensorFlow: state in place, one tape, `gradient` once per distinct row."""

import contextlib
import itertools
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


def random_state() -> Any:
    """See `mlsystem.engine`."""
    return None


def set_random_state(state: Any) -> None:
    """See `mlsystem.engine`."""


def train_function(system: Any) -> Callable[..., Any]:
    """See `mlsystem.engine`."""
    return _in_python(_keras.made_function(system, "train"), system)


def test_function(system: Any) -> Callable[..., Any]:
    """See `mlsystem.engine`."""
    return _in_python(_keras.made_function(system, "test"), system)


def _in_python(function: Callable[..., Any], system: Any) -> Callable[..., Any]:
    """Lets Keras' function, which reads batches in Python too, notice where they end."""

    def run(iterator: Any) -> Any:
        if isinstance(iterator, (tf.data.Iterator, tf.distribute.DistributedIterator)):
            return function(iterator)
        batches = list(itertools.islice(iterator, system.steps_per_execution))
        if not batches:
            raise StopIteration
        return function(iter(batches))

    return run


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


def reshuffle(epoch: Any) -> None:
    """See `mlsystem.engine`."""
    # Where a seed is set, `tf.random.shuffle` gives each epoch the same order.
    before, tf.random.shuffle = tf.random.shuffle, _permuted
    try:
        dataset = _keras.made_dataset(epoch)
    finally:
        tf.random.shuffle = before
    if dataset is not None:
        epoch._distributed_dataset = dataset


def _permuted(values: Any) -> Any:
    permuted = tf.numpy_function(np.random.permutation, [values], values.dtype)
    permuted.set_shape(values.shape)
    return permuted


def reads_ahead() -> bool:
    """See `mlsystem.engine`."""
    return True


def as_layer(net: Any) -> Any:
    """See `mlsystem.engine`."""
    return net

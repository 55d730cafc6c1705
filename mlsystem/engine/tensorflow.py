"""The engine on TensorFlow: state in place, one tape, `gradient` once per distinct row."""

import contextlib
import functools
import itertools
import math
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import tensorflow as tf
from keras import ops, tree

from mlsystem import _keras
from mlsystem._tensors import tensor
from mlsystem.engine import select
from mlsystem.engine.scope import Deferred

# Bytes of state from which on a rehearsal is traced: that takes longer than a copy of less.
LARGE = 2**26
# What reads a variable, and leaves it as it is.
_READS = ("ReadVariableOp", "ResourceGather", "ResourceGatherNd", "VariableShape")


def gradients(fn: Callable[[], Any], plan: Callable[[Any], Any], state: list[Any]) -> Any:
    """See `mlsystem.engine`."""
    with tf.GradientTape(persistent=True) as tape:
        tape.watch(_unwatched(state))
        losses, aux = fn()
        rows = [(_total(losses, weights), variables) for weights, variables in plan(losses)]
    return losses, aux, [_backward(tape, total, variables) for total, variables in rows]


def _unwatched(state: list[Any]) -> list[Any]:
    """Variables made while frozen, and trained since: for TensorFlow they are not trainable."""
    trained = [variable.value for variable in state if variable.trainable]
    return [value for value in trained if not getattr(value, "trainable", True)]


def _total(losses: dict[str, Any], weights: dict[str, Any]) -> Any:
    return sum(losses[name] * weight for name, weight in weights.items())


def _backward(tape: Any, total: Any, variables: list[Any]) -> list[Any]:
    return [_dense(g) for g in tape.gradient(total, [variable.value for variable in variables])]


def _dense(gradient: Any) -> Any:
    """A gradient as one tensor: that of a lookup has a row for each index, repeated ones too.

    Keras' optimizers square these rows one by one, where their sum is to be squared.
    """
    if not isinstance(gradient, tf.IndexedSlices):
        return gradient
    rows, shape = gradient.dense_shape[0], gradient.shape
    return tf.ensure_shape(
        tf.math.unsorted_segment_sum(gradient.values, gradient.indices, rows), shape
    )


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
        return tree.pack_sequence_as(x, [_dense(g) for g in found])

    return gradient


def apply(optimizer: Any, gradients: list[Any], weights: list[Any], condition: Any = None) -> None:
    """See `mlsystem.engine`."""
    if condition is None:
        optimizer.apply(gradients, weights)
    elif tf.distribute.get_strategy().num_replicas_in_sync > 1:  # which cannot meet in a branch
        with select.only(condition, [*weights, *optimizer.variables], kept):
            optimizer.apply(gradients, weights)
    else:
        tf.cond(condition, lambda: optimizer.apply(gradients, weights), lambda: None)


def all_finite(gradients: list[Any]) -> Any:
    """See `mlsystem.engine`."""
    if tf.distribute.get_strategy().num_replicas_in_sync > 1:
        return None  # each replica has a gradient of its own, and would take its own branch
    widest = "float64" if any(g.dtype == "float64" for g in gradients) else "float32"
    squares = [tf.nn.l2_loss(tf.cast(_dense(g), widest)) for g in gradients]
    return tf.add_n(squares) < float("inf")  # as NaN is not


def kept(value: Any) -> Any:
    """See `mlsystem.engine`."""
    return tf.identity(value)


def changed(value: Any, old: Any) -> bool:
    """See `mlsystem.engine`."""
    # A variable that was born in this trace has no handle: its value stands in a scope.
    if tf.executing_eagerly() or not hasattr(value, "handle"):
        return True
    handle = tf.compat.v1.get_default_graph().capture(value.handle)
    return any(operation.type not in _READS for operation in handle.consumers())


def step_scope(data: Any) -> contextlib.AbstractContextManager[Any]:
    """See `mlsystem.engine`."""
    # At the end of the data, what does not wait for a batch runs once more: nothing may count it.
    return tf.control_dependencies([leaf for leaf in tree.flatten(data) if tf.is_tensor(leaf)])


def trace() -> Any:
    """See `mlsystem.engine`."""
    return None if tf.executing_eagerly() else tf.compat.v1.get_default_graph()


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
    size = sum(v.value.dtype.size * math.prod(v.shape) for v in state)
    if step.__self__.run_eagerly or size < LARGE:
        with _kept([*state, _keras.global_seed()]):
            step(data)
    else:
        _traced(step, data)


def _traced(step: Any, data: Any) -> None:
    """Traces a step, whose graph is thrown away."""
    leaves, structure = [tensor(leaf) for leaf in tree.flatten(data)], data
    given = {i: leaf for i, leaf in enumerate(leaves) if tf.is_tensor(leaf)}

    def on_tensors(*tensors: Any) -> None:
        filled = dict(enumerate(leaves)) | dict(zip(given, tensors, strict=True))
        step(tree.pack_sequence_as(structure, list(filled.values())))

    # Variables born inside get their values when this scope closes: outside the trace.
    with Deferred():
        specs = [tf.type_spec_from_value(leaf) for leaf in given.values()]
        tf.function(on_tensors, autograph=False).get_concrete_function(*specs)


@contextlib.contextmanager
def _kept(state: list[Any]) -> Iterator[None]:
    """Puts variables back to what they were."""
    before = [tf.identity(variable.value) for variable in state]
    try:
        yield
    finally:
        for variable, value in zip(state, before, strict=True):
            variable.assign(value)


def trial(fn: Callable[[Any], Any], learner: Any) -> Callable[[Any], Any]:
    """See `mlsystem.engine`."""

    def run(data: Any) -> Any:
        with _kept([*learner._mlsystem.state_variables(), _keras.global_seed()]):
            return fn(data)

    return run


def peek(system: Any, *given: Any) -> tuple[Any, tuple[Any, ...]]:
    """See `mlsystem.engine`."""
    [batches] = given
    if isinstance(batches, tf.distribute.DistributedIterator):
        raise ValueError("GradientNorms looks at one device, and not at those of a strategy.")
    drawn = list(itertools.islice(batches, system.steps_per_execution))
    if not drawn:
        return None, given
    is_own = isinstance(batches, tf.data.Iterator)
    return drawn[0], (iter(_dataset(drawn, batches.element_spec) if is_own else drawn),)


def _dataset(drawn: list[Any], spec: Any) -> Any:
    """A data set of some batches whose shapes are as vague as those of another, for one trace."""

    def vague(spec: Any, leaf: Any) -> Any:
        if not isinstance(spec, tf.TensorSpec):
            return leaf
        return tf.raw_ops.PlaceholderWithDefault(input=leaf, shape=spec.shape)

    def batch(*parts: Any) -> Any:
        whole = parts if isinstance(spec, tuple) else parts[0]
        return tf.nest.map_structure(vague, spec, whole)

    sets = [tf.data.Dataset.from_tensors(part).map(batch) for part in drawn]
    return functools.reduce(lambda first, second: first.concatenate(second), sets)


def runs_ahead() -> bool:
    """See `mlsystem.engine`."""
    return True


def reshuffle(epoch: Any) -> None:
    """See `mlsystem.engine`."""
    # Where a seed is set, `tf.random.shuffle` gives each epoch the same order.
    before, tf.random.shuffle = tf.random.shuffle, _permuted
    try:
        dataset = _keras.made_dataset(epoch, _permuted)
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


def aside(system: Any) -> contextlib.AbstractContextManager[Any]:
    """See `mlsystem.engine`."""
    return contextlib.nullcontext()


def profile(folder: str) -> Callable[[], tuple[Path, str]]:
    """See `mlsystem.engine`."""
    tf.profiler.experimental.start(folder)

    def stop() -> tuple[Path, str]:
        tf.profiler.experimental.stop()
        written = Path(folder).rglob("*.xplane.pb")
        path = max(written, key=lambda path: path.stat().st_mtime_ns)
        return path, (
            f"Open it with `xprof --logdir '{folder}'` (python -m pip install xprof), or with "
            "TensorBoard and its profile plugin."
        )

    return stop


def as_layer(net: Any) -> Any:
    """See `mlsystem.engine`."""
    return net

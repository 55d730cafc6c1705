"""The engine on TensorFlow: one `gradient` per group of models that follow the same losses."""

import contextlib
import functools
import itertools
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import tensorflow as tf
from keras import ops, tree

from mlsystem import _keras
from mlsystem._tensors import tensor
from mlsystem.engine.base import Engine, Forward, Plan, Routed, State, newest_file, weighted_sum
from mlsystem.engine.tensorflow.grouped_iterator import GroupedFunction, GroupedIterator
from mlsystem.engine.variable_scope import Deferred

# Operations that read a variable and do not write to it.
_READS = ("ReadVariableOp", "ResourceGather", "ResourceGatherNd", "VariableShape")


class TensorFlowEngine(Engine):
    """See `Engine`."""

    name = "tensorflow"

    def gradients(self, fn: Forward, plan: Plan, state: State) -> Routed:
        with tf.GradientTape(persistent=True) as tape:
            tape.watch(_unwatched(state()))
            losses, aux = fn()
            rows = [(weighted_sum(losses, weights), into) for weights, into in plan(losses)]
        started = [self.replicas.mean_later(_backward(tape, *row)) for row in rows]
        return losses, aux, [averaged() for averaged in started]

    def grad(self, fn: Callable[[Any], Any]) -> Callable[[Any], Any]:
        def gradient(x: Any) -> Any:
            # Copies: a use of `x` that does not come through the argument is constant.
            x = tree.map_structure(lambda leaf: tf.identity(ops.convert_to_tensor(leaf)), x)
            with tf.GradientTape() as tape:
                tape.watch(tree.flatten(x))
                total = ops.sum(fn(x))
            found = tape.gradient(
                total, tree.flatten(x), unconnected_gradients=tf.UnconnectedGradients.ZERO
            )
            return tree.pack_sequence_as(x, [_dense(g) for g in found])

        return gradient

    def all_finite(self, gradients: list[Any]) -> Any:
        widest = "float64" if any(g.dtype == "float64" for g in gradients) else "float32"
        squares = [tf.nn.l2_loss(tf.cast(_dense(g), widest)) for g in gradients]
        return tf.add_n(squares) < float("inf")  # as NaN is not

    def apply(
        self, optimizer: Any, gradients: list[Any], weights: list[Any], condition: Any = None
    ) -> None:
        if condition is None:
            optimizer.apply(gradients, weights)
        else:
            tf.cond(condition, lambda: optimizer.apply(gradients, weights), lambda: None)

    def kept(self, value: Any) -> Any:
        return tf.identity(value)

    def changed(self, value: Any, old: Any) -> bool:
        # A variable made in this trace has no handle. Its value is in a scope.
        if tf.executing_eagerly() or not hasattr(value, "handle"):
            return True
        handle = tf.compat.v1.get_default_graph().capture(value.handle)
        return any(operation.type not in _READS for operation in handle.consumers())

    def train_function(self, system: Any) -> Callable[..., Any]:
        return _in_python(_keras.made_function(system, "train"), system)

    def test_function(self, system: Any) -> Callable[..., Any]:
        return _in_python(_keras.made_function(system, "test"), system)

    def compiler(self, system: Any, step: Any = None) -> str:
        if system.run_eagerly:
            return ""
        return "tf.function with XLA" if system.jit_compile else "tf.function"

    def step_scope(self, data: Any) -> contextlib.AbstractContextManager[Any]:
        # At the end of the data, operations that do not wait for a batch run once more. What counts
        # batches must wait.
        return tf.control_dependencies([leaf for leaf in tree.flatten(data) if tf.is_tensor(leaf)])

    def trace(self) -> Any:
        return None if tf.executing_eagerly() else tf.compat.v1.get_default_graph()

    def _rehearse_on_shapes(self, step: Any, data: Any, state: list[Any]) -> bool:
        leaves, structure = [tensor(leaf) for leaf in tree.flatten(data)], data
        given = {i: leaf for i, leaf in enumerate(leaves) if tf.is_tensor(leaf)}

        def on_tensors(*tensors: Any) -> None:
            filled = dict(enumerate(leaves)) | dict(zip(given, tensors, strict=True))
            step(tree.pack_sequence_as(structure, list(filled.values())))

        # Variables made inside get their values when this scope closes: outside the trace.
        with Deferred():
            specs = [tf.type_spec_from_value(leaf) for leaf in given.values()]
            tf.function(on_tensors, autograph=False).get_concrete_function(*specs)
        return True

    def check_devices(self, system: Any) -> None:
        strategies = tf.distribute.get_strategy(), system.distribute_strategy
        for strategy in strategies:
            if (count := strategy.num_replicas_in_sync) > 1:
                raise ValueError(
                    f"'{system.name}' is in the scope of a {type(strategy).__name__} with {count} "
                    "replicas. A process on TensorFlow trains on one device. Leave out the scope, "
                    "start one process for each device with TF_CONFIG, and call ml.distribute()."
                )

    def is_out_of_memory(self, error: BaseException) -> bool:
        return isinstance(error, (tf.errors.ResourceExhaustedError, MemoryError))

    def peek(self, system: Any, *given: Any) -> tuple[Any, tuple[Any, ...]]:
        [batches] = given
        batches = getattr(batches, "iterator", batches)  # of one in groups
        drawn = list(itertools.islice(batches, system.steps_per_execution))
        if not drawn:
            return None, given
        is_own = isinstance(batches, tf.data.Iterator)
        return drawn[0], (iter(_dataset(drawn, batches.element_spec) if is_own else drawn),)

    def no_groups(self, system: Any) -> str:
        if not self.compiler(system):
            return "its steps run eagerly"
        is_one = tf.distribute.get_strategy().num_replicas_in_sync == 1
        return "" if is_one else "it trains on several devices"

    def grouped(self, dataset: Any) -> Any:
        return GroupedIterator(dataset)

    def reads_ahead(self) -> bool:
        return True

    def reshuffle(self, epoch: Any) -> None:
        # Where a seed is set, `tf.random.shuffle` gives each epoch the same order.
        before, tf.random.shuffle = tf.random.shuffle, _permuted
        try:
            dataset = _keras.made_dataset(epoch, _permuted)
        finally:
            tf.random.shuffle = before
        if dataset is not None:
            epoch._distributed_dataset = dataset

    @contextlib.contextmanager
    def full_precision(self) -> Iterator[None]:
        config = tf.config.experimental
        before = config.tensor_float_32_execution_enabled()
        config.enable_tensor_float_32_execution(False)
        try:
            yield
        finally:
            config.enable_tensor_float_32_execution(before)

    def profile(self, folder: str) -> Callable[[], tuple[Path, str]]:
        tf.profiler.experimental.start(folder)

        def stop() -> tuple[Path, str]:
            tf.profiler.experimental.stop()
            return newest_file(folder, "*.xplane.pb"), (
                f"Open it with `xprof --logdir '{folder}'` (python -m pip install xprof), or with "
                "TensorBoard and its profile plugin."
            )

        return stop


def _unwatched(state: list[Any]) -> list[Any]:
    """Find the trained variables that were frozen when made. No tape watches them by itself."""
    trained = [variable.value for variable in state if variable.trainable]
    return [value for value in trained if not getattr(value, "trainable", True)]


def _backward(tape: Any, total: Any, variables: list[Any]) -> list[Any]:
    return [_dense(g) for g in tape.gradient(total, [variable.value for variable in variables])]


def _dense(gradient: Any) -> Any:
    """Make a gradient one tensor. The gradient of a lookup has one row for each index.

    If an index is repeated, the sum of its rows is to be squared. Keras' optimizers square the rows
    one by one.
    """
    if not isinstance(gradient, tf.IndexedSlices):
        return gradient
    rows, shape = gradient.dense_shape[0], gradient.shape
    return tf.ensure_shape(
        tf.math.unsorted_segment_sum(gradient.values, gradient.indices, rows), shape
    )


def _in_python(function: Callable[..., Any], system: Any) -> Callable[..., Any]:
    """Let Keras' function notice the end of batches that are read in Python, and take groups."""
    grouped = GroupedFunction(system, lambda: _keras.made_function(system, "train"))

    def run(iterator: Any) -> Any:
        if isinstance(iterator, GroupedIterator):
            return grouped(iterator) if iterator.ready() > 1 else run(iterator.iterator)
        if isinstance(iterator, (tf.data.Iterator, tf.distribute.DistributedIterator)):
            return function(iterator)
        batches = list(itertools.islice(iterator, system.steps_per_execution))
        if not batches:
            raise StopIteration
        return function(iter(batches))

    return run


def _dataset(drawn: list[Any], spec: Any) -> Any:
    """Make a data set of some batches. Their shapes are as unknown as in `spec`, for one trace."""

    def loosened(spec: Any, leaf: Any) -> Any:
        if not isinstance(spec, tf.TensorSpec):
            return leaf
        return tf.raw_ops.PlaceholderWithDefault(input=leaf, shape=spec.shape)

    def batch(*parts: Any) -> Any:
        whole = parts if isinstance(spec, tuple) else parts[0]
        return tf.nest.map_structure(loosened, spec, whole)

    sets = [tf.data.Dataset.from_tensors(part).map(batch) for part in drawn]
    return functools.reduce(lambda first, second: first.concatenate(second), sets)


def _permuted(values: Any) -> Any:
    permuted = tf.numpy_function(np.random.permutation, [values], values.dtype)
    permuted.set_shape(values.shape)
    return permuted

"""Several processes on TensorFlow: one for each device, and its collective operations.

A `MultiWorkerMirroredStrategy` connects the processes. Steps do not run in its scope: each process
has plain variables, and a step holds the collective operations itself.
"""

import math
import pickle
import warnings
import weakref
import zlib
from collections.abc import Callable
from typing import Any

import numpy as np
import tensorflow as tf

from mlsystem import _keras
from mlsystem._learner import running
from mlsystem.engine.replicas import Replicas, buckets, fold_noise

_GROUP = 7001  # the key of the group of all processes
_MOST = 2**31 - 1  # the largest key
# Whether `start` waits for the other processes and says which are missing.
MEETS = False


class TensorFlowReplicas(Replicas):
    """The workers of a strategy. See `Replicas`."""

    reduces = True

    def __init__(self, index: int, count: int, hint: str) -> None:
        self.index, self.count = index, count
        self.size = self.shards = count
        self.shard, self.hint = index, hint
        self.step: Any = _nothing  # the step that gets keys now
        self.number = self.outside = 0

    def _key(self, x: Any) -> Any:
        """Return the key of the next operation, the same on all processes.

        TensorFlow knows the members of an operation by its key, which goes with one shape. In each
        step the numbers begin anew, so that it does not matter if only one process traces it.
        """
        step = getattr(running, "step", None)
        if step is None:
            self.outside = (self.outside + 1) % 64
            number, kind = self.outside, None
        else:
            self.number = self.number + 1 if self.step() is step else 0
            self.step, number, kind = weakref.ref(step), self.number, step.training
        place = repr((kind, number, x.dtype, x.shape.as_list())).encode()
        key = zlib.crc32(place) % _MOST
        if x.shape.is_fully_defined():
            return key
        rows = tf.cast(tf.reduce_sum(tf.shape(x)), "int64")
        return tf.cast((key + 7919 * rows) % _MOST, "int32")

    def _options(self, x: Any) -> dict[str, Any]:
        return {
            "group_size": self.size,
            "group_key": _GROUP,
            "instance_key": self._key(x),
            "ordering_token": [],
            "communication_hint": self.hint,
        }

    def total(self, x: Any) -> Any:
        x = tf.stop_gradient(x)
        if self.is_alone:
            return x * self.size
        found = tf.raw_ops.CollectiveReduceV2(
            input=x, merge_op="Add", final_op="Id", **self._options(x)
        )
        return tf.ensure_shape(found, x.shape)

    def rows(self, x: Any) -> Any:
        """Return the rows of all replicas, as a constant."""
        if self.is_alone:
            return tf.repeat(x[None], self.size, axis=0)
        x = x[None]
        return tf.raw_ops.CollectiveGatherV2(input=x, **self._options(x))

    def gather(self, x: Any) -> Any:
        # The numbers of rows are known when the step runs, and may differ in an evaluation.
        sizes = self.rows(tf.shape(x)[0])
        return _gathered(x, sizes, self)

    def mean_later(self, gradients: list[Any], again: bool = False) -> Callable[[], list[Any]]:
        found = list(gradients)
        for bucket in buckets(gradients):
            flat = _mean(tf.concat([tf.reshape(found[i], [-1]) for i in bucket], 0), self)
            parts = tf.split(flat, [math.prod(found[i].shape) for i in bucket])
            for i, part in zip(bucket, parts, strict=True):
                found[i] = tf.reshape(part, found[i].shape)
        return lambda: found

    def collect(self, value: Any) -> list[Any]:
        if self.is_alone:
            return [value] * self.count
        text = np.frombuffer(pickle.dumps(value), "uint8").astype("int32")
        sizes = self.rows(tf.constant(len(text))).numpy()
        padded = np.zeros(max(sizes), "int32")
        padded[: len(text)] = text
        rows = self.rows(tf.constant(padded)).numpy().astype("uint8")
        return [pickle.loads(row[:size].tobytes()) for row, size in zip(rows, sizes, strict=True)]

    def any(self, value: bool) -> bool:
        return bool(self.total(tf.constant(int(value))) > 0)

    def share(self, variables: list[Any]) -> None:
        for variable in variables:
            value = tf.convert_to_tensor(_keras.values([variable])[0])
            given = value if self.index == 0 else tf.zeros_like(value)
            variable.assign(self.total(given))


# With losses that are averaged over the processes, the gradient of what each process got is the
# sum of what all of them pass back. Each of these functions is differentiated by another.


def _mean(x: Any, replicas: TensorFlowReplicas) -> Any:
    @tf.custom_gradient  # type: ignore[untyped-decorator]
    def mean(x: Any) -> Any:
        return replicas.total(x / replicas.size), lambda given: _mean(given, replicas)

    return mean(x)


def _gathered(x: Any, sizes: Any, replicas: TensorFlowReplicas) -> Any:
    @tf.custom_gradient  # type: ignore[untyped-decorator]
    def gathered(x: Any) -> Any:
        most = tf.reduce_max(sizes)
        missing = most - tf.shape(x)[0]
        padded = tf.pad(x, [[0, missing], *[[0, 0]] * (len(x.shape) - 1)])
        found = tf.boolean_mask(replicas.rows(padded), tf.sequence_mask(sizes, most))
        found = tf.ensure_shape(found, [None, *x.shape[1:]])
        return found, lambda given: _own_sum(given, sizes, replicas)

    return gathered(x)


def _own_sum(x: Any, sizes: Any, replicas: TensorFlowReplicas) -> Any:
    """Return the sum over the replicas, of which each keeps its own rows."""

    @tf.custom_gradient  # type: ignore[untyped-decorator]
    def own_sum(x: Any) -> Any:
        start = tf.reduce_sum(sizes[: replicas.index])
        found = replicas.total(x)[start : start + sizes[replicas.index]]
        return found, lambda given: _gathered(given, sizes, replicas)

    return own_sum(x)


def _nothing() -> None:
    """Stand in for a reference to a step."""


# Start ------------------------------------------------------------------------------------------


def is_joined() -> bool:
    """Tell whether somebody else has set a strategy."""
    return bool(tf.distribute.has_strategy())


def local_devices() -> int:
    """Return 1: a process on TensorFlow uses one device. Warn of GPUs that no process will use."""
    idle = len(tf.config.list_physical_devices("GPU")) - 1
    if idle > 0:
        warnings.warn(
            f"One process on TensorFlow uses one GPU, and {idle} more are here. Start one process "
            "for each GPU, with TF_CONFIG, to use all. See docs/guides/distribution.md.",
            stacklevel=4,
        )
    return 1


def start(launch: Any, distribution: Any, timeout: float) -> tuple[Any, Any]:
    """Connect the processes of a launch. Return the strategy and the replicas."""
    if distribution is not None or is_joined():
        raise ValueError(
            "On TensorFlow, ml.distribute takes no distribution and no strategy of your own. Start "
            "one process for each device, with TF_CONFIG, and call ml.distribute()."
        )
    if launch is None:
        return None, None
    if launch.by != "TF_CONFIG":
        raise ValueError(
            f"{launch.by} started {launch.count} processes. On TensorFlow, each must know the "
            "addresses of all: set TF_CONFIG. See docs/guides/distribution.md."
        )
    devices = tf.config.list_physical_devices("GPU")
    if devices:
        tf.config.set_visible_devices(devices[launch.local % len(devices)], "GPU")
    options = tf.distribute.experimental.CommunicationOptions(timeout_seconds=timeout)
    strategy = tf.distribute.MultiWorkerMirroredStrategy(communication_options=options)
    replicas = TensorFlowReplicas(launch.index, launch.count, "NCCL" if devices else "RING")
    fold_noise(_keras.tensorflow_random(), replicas.index)
    return strategy, replicas

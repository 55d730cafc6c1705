"""Several devices and processes on JAX: Keras' distributions, one program over all devices.

A step computes with global arrays, so that losses, batch norm and noise are those of one device.
"""

import atexit
import os
import pickle
import sys
from collections.abc import Mapping
from typing import Any

import jax
import keras
import numpy as np
from jax.experimental import multihost_utils
from keras import tree

from mlsystem import _keras
from mlsystem.engine.replicas import Replicas

# Seconds after which a process that went silent counts as dead.
_HEARTBEAT = 30
# Whether `start` waits for the other processes and says which are missing.
MEETS = False


class JaxReplicas(Replicas):
    """The devices of a Keras distribution. See `Replicas`."""

    def __init__(self, distribution: Any) -> None:
        self.distribution, mesh = distribution, distribution.device_mesh
        self.index, self.count = jax.process_index(), jax.process_count()
        name = getattr(distribution, "batch_dim_name", None) or mesh.axis_names[0]
        self.size = int(mesh.shape[mesh.axis_names.index(name)])
        self.shards = min(self.count, self.size)
        # Processes that hold parts of one replica read the same rows.
        self.shard = self.index * self.shards // self.count

    def place(self, batch: Any, whole: bool) -> Any:
        """Make global arrays of the rows of this process, or of a whole batch on each device."""

        def placed(leaf: Any) -> Any:
            if leaf is None:
                return None
            layout = self.distribution.get_data_layout(np.shape(leaf)).backend_layout
            if whole:
                everywhere = jax.sharding.PartitionSpec()  # type: ignore[no-untyped-call]
                layout = jax.sharding.NamedSharding(layout.mesh, everywhere)
            # Without a shape, JAX would add up the rows of processes that hold the same.
            shape = np.shape(leaf)
            shape = shape if whole else (shape[0] * self.shards, *shape[1:])
            make: Any = jax.make_array_from_process_local_data
            return make(layout, np.asarray(leaf), shape)

        return tree.map_structure(placed, batch)

    def collect(self, value: Any) -> list[Any]:
        if self.count == 1:
            return [value]
        text = np.frombuffer(pickle.dumps(value), "uint8")
        sizes = multihost_utils.process_allgather(np.array(len(text)))
        padded = np.zeros(int(sizes.max()), "uint8")
        padded[: len(text)] = text
        rows = multihost_utils.process_allgather(padded)
        return [
            pickle.loads(row[: int(size)].tobytes()) for row, size in zip(rows, sizes, strict=True)
        ]

    def any(self, value: bool) -> bool:
        return value if self.count == 1 else bool(multihost_utils.process_allgather(value).any())

    def everywhere(self, x: Any) -> Any:
        """Give all devices the whole of an array, so that each process can read it."""
        mesh, constrain = (
            self.distribution.device_mesh.backend_mesh,
            jax.lax.with_sharding_constraint,
        )
        whole = jax.sharding.NamedSharding(mesh, jax.sharding.PartitionSpec())  # type: ignore
        return jax.tree.map(lambda leaf: constrain(leaf, whole), x)  # type: ignore

    def share(self, variables: list[Any]) -> None:
        whole = [v for v, x in zip(variables, _keras.values(variables), strict=True) if _whole(x)]
        values = [np.asarray(value) for value in _keras.values(whole)]
        if len(set(self.collect(hash(tuple(value.tobytes() for value in values))))) == 1:
            return
        first = self.collect(values if self.index == 0 else None)[0]
        for variable, value in zip(whole, first, strict=True):
            variable.assign(value)


def _whole(value: Any) -> bool:
    return isinstance(value, jax.Array) and value.is_fully_replicated


# Start ------------------------------------------------------------------------------------------


def is_joined() -> bool:
    """Tell whether somebody else has connected the processes, or set a distribution."""
    return keras.distribution.distribution() is not None or jax.distributed.is_initialized()


def local_devices() -> int:
    """Count the devices of this process."""
    return int(jax.local_device_count())


def start(launch: Any, distribution: Any, timeout: float) -> tuple[Any, JaxReplicas | None]:
    """Connect the processes of a launch. Return the Keras distribution and the replicas."""
    if launch is not None and not jax.distributed.is_initialized():
        _connect(launch, timeout)
    if callable(distribution):
        distribution = distribution()
    if isinstance(distribution, Mapping):
        distribution = _by_member(distribution)
    distribution = distribution or keras.distribution.distribution()
    if distribution is None:
        if jax.device_count() == 1:
            return None, None
        distribution = keras.distribution.DataParallel(
            devices=keras.distribution.list_devices(), auto_shard_dataset=False
        )
    # The rows of each process are chosen here, and not by Keras, which takes tf.data only.
    distribution.auto_shard_dataset = False
    keras.distribution.set_distribution(distribution)
    return distribution, JaxReplicas(distribution)


def _connect(launch: Any, timeout: float) -> None:
    config: Any = jax.config
    config.update("jax_cpu_collectives_implementation", "gloo")
    jax.distributed.initialize(
        launch.address,
        launch.count,
        launch.index,
        initialization_timeout=int(timeout),
        heartbeat_timeout_seconds=_HEARTBEAT,
        coordinator_bind_address=launch.address if launch.is_local else None,
    )
    atexit.register(_leave_at_once)


def _leave_at_once() -> None:
    """End a process that failed. JAX would wait for the others, which may be dead."""
    if getattr(sys, "last_value", None) is not None:
        sys.stdout.flush()
        sys.stderr.flush()
        os._exit(1)


def _by_member(layouts: Mapping[str, Any]) -> Any:
    """Make one distribution of a layout map for each member of a system."""
    first = next(iter(layouts.values()))
    joined = keras.distribution.LayoutMap(first.device_mesh)
    for member, layout in layouts.items():
        for path, axes in layout.items():
            joined[f"(^|.*/){member}/.*{path}"] = axes
    return keras.distribution.ModelParallel(layout_map=joined)

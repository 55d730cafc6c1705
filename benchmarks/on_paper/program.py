"""Compile the step of a system for more devices than there are, and read what it communicates."""

import math
from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import keras
import numpy as np
from jax.sharding import NamedSharding, PartitionSpec

import mlsystem as ml
from benchmarks.on_paper.collectives import KINDS, NODE, collectives, ring
from mlsystem.engine.jax.compiled_step import stateless

Spec = Callable[[str, tuple[int, ...]], PartitionSpec]  # of a weight, by its path and shape


class Cost(NamedTuple):
    """What one step costs one device."""

    collectives: dict[str, int]  # bytes of the results, by kind
    near: float  # bytes that a device sends in rings within a node
    far: float  # bytes that it sends in rings among nodes
    flops: float
    arguments: int  # bytes of weights, optimizers and batch
    temporary: int  # bytes of everything in between, at the peak


def replicated(path: str, shape: tuple[int, ...]) -> PartitionSpec:
    """Every device holds the whole of each weight: data parallel."""
    return PartitionSpec()


class Program:
    """The training step of a system, as a function of its state and a batch."""

    def __init__(self, system: Any, batch: Callable[[int], Any]) -> None:
        ml.setup(system, batch(1))
        self.state = system._mlsystem.state_variables()
        self.shapes = [(v.path, tuple(v.shape), v.dtype) for v in self.state]
        self.step = stateless(system.train_step, self.state)
        self.batch = batch

    def lower(self, mesh: Any, size: int, spec: Spec = replicated) -> Any:
        """Lower the step for a mesh and a global batch size. No array is made."""
        state = [
            jax.ShapeDtypeStruct(shape, dtype, sharding=NamedSharding(mesh, spec(path, shape)))
            for path, shape, dtype in self.shapes
        ]
        one = self.batch(1)
        rows = NamedSharding(mesh, PartitionSpec("batch"))
        data = jax.ShapeDtypeStruct((size, *one.shape[1:]), one.dtype, sharding=rows)
        kept = None, [value.sharding for value in state]
        traced = jax.jit(self.step, donate_argnums=0, out_shardings=kept).trace(state, (data,))
        return traced.lower(lowering_platforms=("cpu",))  # asked for where no device exists


def mesh(devices: int, model: int = 1) -> Any:
    """Devices in rows that share a batch; `model` of them share the weights of one replica."""
    found = np.array(jax.devices()[:devices]).reshape(devices // model, model)
    return jax.sharding.Mesh(found, ("batch", "model"))


def abstract_mesh(devices: int, model: int = 1) -> Any:
    """The same of devices that do not exist: a step can be lowered for them, and not compiled."""
    return jax.sharding.AbstractMesh((devices // model, model), ("batch", "model"))


def cost(lowered: Any) -> Cost:
    """Compile a step and read its cost."""
    compiled = lowered.compile()
    found = list(collectives(compiled.as_text()))
    by_kind = {kind: sum(b for k, b, _ in found if k == kind) for kind in KINDS}
    sent = {True: 0.0, False: 0.0}
    for kind, size, devices in found:
        sent[max(devices) - min(devices) < NODE] += ring(kind, size, len(devices))
    memory = compiled.memory_analysis()
    return Cost(
        {kind: size for kind, size in by_kind.items() if size},
        sent[True],
        sent[False],
        compiled.cost_analysis()["flops"],
        memory.argument_size_in_bytes,
        memory.temp_size_in_bytes,
    )


def count(variables: Any) -> int:
    """Count the numbers in some variables."""
    return sum(math.prod(v.shape) for v in variables)


if keras.backend.backend() != "jax":
    raise SystemExit("The program of a step is read from XLA: set KERAS_BACKEND=jax.")

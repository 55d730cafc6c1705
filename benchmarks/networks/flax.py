"""The networks in Flax (linen), with Keras' initial values."""

from functools import partial
from typing import Any

import jax.numpy as jnp
from flax import linen as nn

from benchmarks.networks.layers import Layer, describe
from benchmarks.workloads import Workload

_KINDS = {
    "dense": nn.Dense,
    "conv": partial(nn.Conv, kernel_size=(4, 4), strides=(2, 2)),
    "deconv": partial(nn.ConvTranspose, kernel_size=(4, 4), strides=(2, 2), padding="SAME"),
}
_ACTIVATIONS = {"relu": nn.relu, "leaky": partial(nn.leaky_relu, negative_slope=0.2)}
_ACTIVATIONS |= {"sigmoid": nn.sigmoid, None: lambda x: x}


class Network(nn.Module):
    """One network, from its description."""

    inputs: tuple[int, ...]
    layers: tuple[Layer, ...]
    dtype: Any

    @nn.compact
    def __call__(self, x: Any) -> Any:
        for block in self.layers:
            x = _apply(block, x, self.dtype)
        return x


def _apply(block: Layer, x: Any, dtype: Any) -> Any:
    """The outputs of a layer with its norm and its activation."""
    if block.kind == "flatten":
        return x.reshape(len(x), -1)
    if block.kind == "image":
        return x.reshape(-1, *block.size)
    options = {"kernel_init": nn.initializers.glorot_uniform(), "dtype": dtype}
    x = _KINDS[block.kind](block.size, use_bias=not block.norm, **options)(x)
    if block.norm:
        x = nn.BatchNorm(use_running_average=False, momentum=0.9, epsilon=1e-5, dtype=dtype)(x)
    return _ACTIVATIONS[block.activation](x)


def networks(workload: Workload) -> dict[str, Network]:
    """The networks of a workload by name."""
    dtype = jnp.bfloat16 if workload.bfloat16 else jnp.float32
    return {name: Network(*network, dtype) for name, network in describe(workload).items()}

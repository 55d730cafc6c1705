"""The networks in Keras."""

from functools import partial
from typing import Any

import keras
from keras import layers

from benchmarks.networks.layers import Layer, describe
from benchmarks.workloads import EPSILON, Workload

_KINDS = {
    "dense": layers.Dense,
    "conv": partial(layers.Conv2D, kernel_size=4, strides=2, padding="same"),
    "deconv": partial(layers.Conv2DTranspose, kernel_size=4, strides=2, padding="same"),
}


def networks(workload: Workload) -> dict[str, Any]:
    """The networks of a workload by name, built."""
    found = {}
    for name, network in describe(workload).items():
        stack = [layer for block in network.layers for layer in _block(block)]
        found[name] = keras.Sequential([keras.Input(network.inputs), *stack])
    return found


def adam(workload: Workload) -> keras.optimizers.Adam:
    """One optimizer of a workload."""
    beta_1, beta_2 = workload.betas
    return keras.optimizers.Adam(workload.rate, beta_1, beta_2, epsilon=EPSILON)


def _block(block: Layer) -> list[Any]:
    """A layer with its norm and its activation, which is the layer's own where it can be."""
    if block.kind == "flatten":
        return [layers.Flatten()]
    if block.kind == "image":
        return [layers.Reshape(block.size)]
    own = None if block.norm or block.activation == "leaky" else block.activation
    stack = [_KINDS[block.kind](block.size, activation=own, use_bias=not block.norm)]
    if block.norm:
        stack.append(layers.BatchNormalization(momentum=0.9, epsilon=1e-5))
    if block.activation != own:
        stack.append(layers.ReLU() if block.activation == "relu" else layers.LeakyReLU(0.2))
    return stack

"""The networks in PyTorch, with channels first and Keras' initial values."""

from functools import partial
from typing import Any

import torch
from torch import nn

from benchmarks.networks.layers import Layer, Network, describe
from benchmarks.workloads import Workload

# Lazy layers take the number of their inputs from the first batch, and are usual ones from then on.
_KINDS = {
    "dense": nn.LazyLinear,
    "conv": partial(nn.LazyConv2d, kernel_size=4, stride=2, padding=1),
    "deconv": partial(nn.LazyConvTranspose2d, kernel_size=4, stride=2, padding=1),
}
_ACTIVATIONS = {"relu": nn.ReLU, "leaky": partial(nn.LeakyReLU, 0.2), "sigmoid": nn.Sigmoid}


def networks(workload: Workload) -> dict[str, nn.Module]:
    """The networks of a workload by name."""
    return {name: _build(network) for name, network in describe(workload).items()}


def _build(network: Network) -> nn.Module:
    built = nn.Sequential(*(layer for block in network.layers for layer in _block(block)))
    *sizes, channels = network.inputs
    built.eval()(torch.zeros(1, channels, *sizes))
    return built.train().apply(_initialize)


def _block(block: Layer) -> list[nn.Module]:
    if block.kind == "flatten":
        return [nn.Flatten()]
    if block.kind == "image":
        rows, columns, channels = block.size
        return [nn.Unflatten(1, (channels, rows, columns))]
    stack: list[Any] = [_KINDS[block.kind](block.size, bias=not block.norm)]
    if block.norm:
        stack.append(nn.LazyBatchNorm1d() if block.kind == "dense" else nn.LazyBatchNorm2d())
    if block.activation:
        stack.append(_ACTIVATIONS[block.activation]())
    return stack


@torch.no_grad()
def _initialize(layer: nn.Module) -> None:
    if isinstance(layer, nn.Linear | nn.Conv2d | nn.ConvTranspose2d):
        nn.init.xavier_uniform_(layer.weight)
        if layer.bias is not None:
            nn.init.zeros_(layer.bias)

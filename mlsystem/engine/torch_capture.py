"""A step captured as one graph of ATen operations: forward, backward, optimizers and metrics.

The step runs once on fake tensors, which have shapes and no numbers: what would depend on a
number in Python fails loudly instead of being baked in.
"""

import contextlib
from collections.abc import Callable, Iterable, Iterator
from typing import Any

import torch
from keras import tree
from torch.fx.experimental.proxy_tensor import make_fx

from mlsystem import _keras
from mlsystem.engine import torch_graph, torch_traceable


def capture(
    step: Callable[[Any], Any], state: list[Any], module: torch.nn.Module, data: Any
) -> torch.fx.GraphModule:
    """The step as a graph from the values of `state` and the leaves of `data` to its logs.

    Args:
        step: function of one batch that reads and assigns variables.
        state: all variables that it may read or assign.
        module: the module whose parameters and buffers it may use.
        data: a batch of tensors.
    """
    values = [_keras.value(variable) for variable in state]

    def flat(*inputs: torch.Tensor) -> Any:
        given, leaves = inputs[: len(state)], inputs[len(state) :]
        with torch_traceable.swapped(state, given), _swapped_in_module(module, values, given):
            return step(_with_tensors(data, leaves))

    with torch_traceable.traceable(state), torch.no_grad():
        trace = make_fx(flat, tracing_mode="fake", _allow_non_fake_inputs=True)
        graph = trace(*values, *tensors(data))
    return torch_graph.simplified(graph)


def tensors(batch: Any) -> list[torch.Tensor]:
    """The tensors in a batch, in the order in which a graph takes them."""
    return [leaf for leaf in tree.flatten(batch) if isinstance(leaf, torch.Tensor)]


def _with_tensors(batch: Any, given: Iterable[torch.Tensor]) -> Any:
    """The batch with other tensors in the place of its own."""
    others = iter(given)
    leaves = tree.flatten(batch)
    leaves = [next(others) if isinstance(leaf, torch.Tensor) else leaf for leaf in leaves]
    return tree.pack_sequence_as(batch, leaves)


@contextlib.contextmanager
def _swapped_in_module(module: torch.nn.Module, values: Any, given: Any) -> Iterator[None]:
    """Does the same to the modules that share their parameters with the variables."""
    other = {id(value): tensor for value, tensor in zip(values, given, strict=True)}
    before = []
    for part in module.modules():
        for name, parameter in part._parameters.items():
            if id(parameter) in other:
                before.append((part._parameters, name, parameter))
                part._parameters[name] = other[id(parameter)]
    try:
        yield
    finally:
        for parameters, name, parameter in before:
            parameters[name] = parameter

"""A step captured as one graph of ATen operations: forward, backward, optimizers and metrics.

The step runs once on fake tensors, which have shapes and no numbers: what would depend on a
number in Python fails loudly instead of being baked in.
"""

import contextlib
from collections.abc import Callable, Iterator, Sequence
from typing import Any

import numpy as np
import torch
from torch.fx.experimental.proxy_tensor import make_fx

from mlsystem.engine import torch_graph
from mlsystem.engine.torch_traceable import swapped, traceable


def capture(
    step: Callable[..., Any],
    state: list[Any],
    module: torch.nn.Module,
    values: list[torch.Tensor],
    inputs: list[torch.Tensor],
    fused: bool,
) -> torch.fx.GraphModule:
    """The step as a graph from the values of the state and the tensors of a batch to the logs.

    Args:
        step: function of the tensors of a batch that reads and assigns variables.
        state: all variables that it may read or assign.
        module: the module whose parameters it may use.
        values: the values of the state.
        inputs: the tensors of a batch.
        fused: whether an optimizer may be one operation, which a compiler cannot look into.
    """

    def flat(*given: torch.Tensor) -> Any:
        now = given[: len(state)]
        with swapped(state, now), _swapped_in_module(module, values, now):
            return step(*given[len(state) :])

    numpy_state = np.random.get_state()
    try:
        with traceable(state, fused), torch.no_grad():
            trace = make_fx(flat, tracing_mode="fake", _allow_non_fake_inputs=True)
            return torch_graph.simplified(trace(*values, *inputs))
    finally:
        np.random.set_state(numpy_state)


@contextlib.contextmanager
def _swapped_in_module(
    module: torch.nn.Module, values: Sequence[torch.Tensor], given: Sequence[torch.Tensor]
) -> Iterator[None]:
    """Puts other tensors also into the modules that share their parameters with the variables."""
    other = {id(value): tensor for value, tensor in zip(values, given, strict=True)}
    shared = [
        (part._parameters, name, parameter)
        for part in module.modules()
        for name, parameter in part._parameters.items()
        if id(parameter) in other
    ]
    for parameters, name, parameter in shared:
        parameters[name] = other[id(parameter)]  # type: ignore[assignment]
    try:
        yield
    finally:
        for parameters, name, parameter in shared:
            parameters[name] = parameter

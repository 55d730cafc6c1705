"""A step captured as one graph of ATen operations: forward, backward, optimizers and metrics.

The step runs once on fake tensors, which have shapes and no numbers: what would depend on a
number in Python fails loudly instead of being baked in.
"""

from collections.abc import Callable
from typing import Any

import numpy as np
import torch
from torch.fx.experimental.proxy_tensor import make_fx

from mlsystem import _keras
from mlsystem.engine import torch_graph
from mlsystem.engine.torch_traceable import swapped, swapped_in_module, traceable


def capture(
    step: Callable[..., Any],
    state: list[Any],
    module: torch.nn.Module,
    values: list[torch.Tensor],
    inputs: list[torch.Tensor],
    fused: bool,
    *,
    faster: bool = True,
) -> torch.fx.GraphModule:
    """The step as a graph from the values of the state and the tensors of a batch to the logs.

    Args:
        step: function of the tensors of a batch that reads and assigns variables.
        state: all variables that it may read or assign.
        module: the module whose parameters and buffers it may use.
        values: the values of the state, then the buffers.
        inputs: the tensors of a batch.
        fused: whether the graph is run as it is. An optimizer may be one operation then, and a
            condition a branch, neither of which a compiler takes.
        faster: whether some of what Keras computes is replaced by faster operations of torch.
    """

    def flat(*given: torch.Tensor) -> Any:
        now = given[: len(values)]
        with swapped(state, now[: len(state)]), swapped_in_module(module, values, now):
            return step(*given[len(values) :])

    before = np.random.get_state(legacy=False)
    try:
        with traceable(state, fused, faster), torch.no_grad():
            trace = make_fx(flat, tracing_mode="fake", _allow_non_fake_inputs=True)
            graph = trace(*values, *inputs)
        if str(np.random.get_state(legacy=False)) != str(before):
            raise RuntimeError("It draws from np.random, once for all steps. Use keras.random.")
        return torch_graph.simplified(graph)
    finally:
        np.random.set_state(before)
        _keras.clear_losses(module)

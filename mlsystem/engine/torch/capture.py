"""Steps run once on fake tensors: to capture them as one graph, or to rehearse them.

Fake tensors have shapes and no numbers, and take no memory. Python code that depends on a number
fails on them, so that no number of the first batch gets into the graph.
"""

import contextlib
from collections.abc import Callable
from typing import Any

import numpy as np
import torch
from keras import tree
from torch._subclasses.fake_tensor import FakeTensorMode
from torch.fx.experimental.proxy_tensor import make_fx

from mlsystem import _keras
from mlsystem._tensors import tensor
from mlsystem.engine.scope import Deferred
from mlsystem.engine.torch import graph_passes
from mlsystem.engine.torch.traceable_keras import swapped, swapped_in_module, traceable


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
    """Capture a step as one graph of ATen operations: forward, backward, optimizers and metrics.

    The graph computes the logs from the values of the state and the tensors of a batch.

    Args:
        step: function of the tensors of a batch that reads and assigns variables.
        state: all variables that it may read or assign.
        module: the module whose parameters and buffers it may use.
        values: the values of the state, then the buffers.
        inputs: the tensors of a batch.
        fused: whether the graph is run as it is. An optimizer may be one operation then, and a
            condition a branch. A compiler takes neither.
        faster: whether faster operations of torch replace some of Keras' operations.
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
        return graph_passes.simplified(graph)
    finally:
        np.random.set_state(before)
        _keras.clear_losses(module)


def rehearse(step: Any, data: Any, state: list[Any]) -> None:
    """Run a step of a learner without changing its state. Fail if the step needs a number."""
    module = step.__self__
    mode = FakeTensorMode(allow_non_fake_inputs=True)
    values = [*_keras.values(state), *module.buffers()]
    fakes = [mode.from_tensor(value, static_shapes=True) for value in values]

    def fake(leaf: Any) -> Any:
        leaf = tensor(leaf)
        is_tensor = isinstance(leaf, torch.Tensor)
        return mode.from_tensor(leaf, static_shapes=True) if is_tensor else leaf

    data = tree.map_structure(fake, data)
    with contextlib.ExitStack() as stack:
        # Variables made inside get their values when this scope closes: outside the mode.
        stack.enter_context(Deferred())
        stack.callback(_keras.clear_losses, module)
        stack.enter_context(mode)
        stack.enter_context(traceable(state, fused=True, faster=True))
        stack.enter_context(swapped(state, fakes[: len(state)]))
        stack.enter_context(swapped_in_module(module, values, fakes))
        step(data)

"""A step rehearsed on fake tensors, which have shapes and no numbers, and so take no memory."""

import contextlib
from collections.abc import Callable
from typing import Any

import torch
from keras import tree
from torch._subclasses.fake_tensor import FakeTensorMode

from mlsystem import _keras
from mlsystem._tensors import tensor
from mlsystem.engine.scope import Deferred
from mlsystem.engine.torch_traceable import swapped, swapped_in_module, traceable


def rehearse(step: Callable[[Any], Any], data: Any, state: list[Any]) -> None:
    """Runs a step of a learner, whose state never changes. Fails where the step needs numbers."""
    module: Any = step.__self__  # type: ignore[attr-defined]
    mode = FakeTensorMode(allow_non_fake_inputs=True)
    values = [*_keras.values(state), *module.buffers()]
    fakes = [mode.from_tensor(value, static_shapes=True) for value in values]

    def fake(leaf: Any) -> Any:
        leaf = tensor(leaf)
        is_tensor = isinstance(leaf, torch.Tensor)
        return mode.from_tensor(leaf, static_shapes=True) if is_tensor else leaf

    data = tree.map_structure(fake, data)
    with contextlib.ExitStack() as stack:
        # Variables born inside get their values when this one closes: outside the mode.
        stack.enter_context(Deferred())
        stack.callback(_keras.clear_losses, module)
        stack.enter_context(mode)
        stack.enter_context(traceable(state, fused=True, faster=True))
        stack.enter_context(swapped(state, fakes[: len(state)]))
        stack.enter_context(swapped_in_module(module, values, fakes))
        step(data)

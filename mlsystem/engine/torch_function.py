"""A step as Keras' torch trainer calls it: captured once for each kind of batch, then run."""

import traceback
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any

import keras
import torch
from keras import tree

from mlsystem import _keras, data
from mlsystem.engine import torch_graph
from mlsystem.engine.torch_capture import capture, tensors

Program = Callable[..., Any]


class Function:
    """One step, in the way that `compile(jit_compile=)` asks for.

    "auto" runs the captured graph, True has inductor compile it, False runs eagerly. A step that
    cannot be captured runs eagerly, with a warning.
    """

    def __init__(self, system: Any, step: Callable[[Any], Any]) -> None:
        self.system, self.step = system, step
        self.how = False if system.run_eagerly else system._run.jit_compile
        self.state = [*system._state_variables(), *_keras.global_seed()]
        self.programs: dict[Any, Program | None] = {}

    def __call__(self, batches: list[Any]) -> Any:
        for batch in batches:
            logs = self._once(tree.map_structure(data.tensor, batch))
        return logs

    def _once(self, batch: Any) -> Any:
        if self.how is False:
            return self.step(batch)
        values = [_keras.value(variable) for variable in self.state]
        # What is frozen or thawed makes another graph.
        kind = (_kind(batch), tuple([value.requires_grad for value in values]))
        if kind not in self.programs:
            self.programs[kind] = self._program(batch, values)
        program = self.programs[kind]
        return self.step(batch) if program is None else program(*values, *tensors(batch))

    def _program(self, batch: Any, values: list[torch.Tensor]) -> Program | None:
        try:
            graph = capture(self.step, self.state, self.system, batch)
        except Exception as error:
            self._warn(error)
            return None
        make = _compiled if self.how is True and not self.programs else _run
        return make(graph, [*values, *tensors(batch)])

    def _warn(self, error: Exception) -> None:
        warnings.warn(
            f"'{self.system.name}' runs eagerly, since its step cannot be captured as one graph: "
            f"{_line(error)} needs a number that is known only when the step runs. Compute it with "
            "keras.ops (`ops.where` in place of `if`), or say compile(jit_compile=False). "
            f"{type(error).__name__}: {error}",
            stacklevel=2,
        )


def _kind(batch: Any) -> Any:
    """What two batches share that one graph serves: structure, shapes and dtypes."""
    if isinstance(batch, torch.Tensor):
        return batch.shape, batch.dtype
    if isinstance(batch, dict):
        return tuple((key, _kind(value)) for key, value in batch.items())
    if isinstance(batch, (list, tuple)):
        return type(batch), *map(_kind, batch)
    return batch


def _run(graph: torch.fx.GraphModule, inputs: list[torch.Tensor]) -> Program:
    # To seed from a variable on a GPU would wait for the GPU at each draw.
    on_cpu = all(tensor.device.type == "cpu" for tensor in inputs)
    graph = torch_graph.seeded(graph) if on_cpu else torch_graph.unseeded(graph)
    return torch.inference_mode()(graph.forward)


def _compiled(graph: torch.fx.GraphModule, inputs: list[torch.Tensor]) -> Program:
    with torch.no_grad():
        return torch.no_grad()(torch._inductor.compile(torch_graph.unseeded(graph), inputs))


def _line(error: Exception) -> str:
    """The line of the user's code that an error comes from."""
    frames = traceback.extract_tb(error.__traceback__)
    ours = tuple(str(Path(m.__file__).parent) for m in (torch, keras, data))
    theirs = [frame for frame in frames if not frame.filename.startswith(ours)] or frames
    return f'"{theirs[-1].line}" ({theirs[-1].filename}, line {theirs[-1].lineno})'

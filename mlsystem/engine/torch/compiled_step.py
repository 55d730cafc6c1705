"""The compiled step on torch: captured once for each kind of batch, then run as a graph."""

import os
import traceback
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any

import keras
import torch

from mlsystem import _keras
from mlsystem._tensors import tensor
from mlsystem.engine.replicas import Replicas
from mlsystem.engine.torch import graph_branches, graph_passes
from mlsystem.engine.torch.capture import capture

Program = Callable[..., Any]
MOST = 16  # kinds of batches that are captured
# Errors of a missing name or argument. In a step that runs eagerly, they come from our own code.
_OF_CODE = (AttributeError, ImportError, TypeError, _keras.Changed)
_FILES = (Path(__file__).parents[1], torch.__file__, keras.__file__)
_OURS, _TORCHS, _KERAS = (f"{Path(file).parent}{os.sep}" for file in _FILES)


class CompiledStep:
    """One step as Keras' torch trainer calls it, run as `compile(jit_compile=)` says.

    "auto" runs the captured graph. True compiles the graph with inductor. False runs eagerly. A
    step that cannot be captured, or a batch that holds other things than tensors, runs eagerly with
    a warning.
    """

    def __init__(self, system: Any, step: Callable[[Any], Any], replicas: Replicas) -> None:
        self.system, self.step, self.replicas = system, step, replicas
        self.how = system._mlsystem.given.jit_compile
        self.state = system._mlsystem.state_variables()
        self.buffers = [
            (module._buffers, name)
            for module in system.modules()
            for name, buffer in module._buffers.items()
            if buffer is not None
        ]
        self.learners = [m._mlsystem for m in system.modules() if "_mlsystem" in vars(m)]
        self.programs: dict[Any, Program | None] = {}
        self.operations = 0  # the number of operations in the graph that was captured last
        self.warnings: list[str] = []
        # How often numbers in attributes changed, which programs hold as constants; the steps since
        # the last change; and the changes in a row that came after a single step.
        self.changes, self.steps, self.hasty = self._changes(), 0, 0

    def __call__(self, batches: list[Any]) -> Any:
        """Run a step on each batch and return the logs of the last."""
        eager = self.how is False or self.system.run_eagerly
        once = self.step if eager else self._once
        logs = None
        for batch in batches:
            with self.replicas.noise(self.system):
                logs = once(batch)
        return logs

    def _once(self, batch: Any) -> Any:
        self._drop_outdated()
        state = [*self.state, _keras.global_seed()]  # `set_random_seed` makes a new one
        values = _keras.values(state)
        values += [owner[name] for owner, name in self.buffers]
        inputs: list[torch.Tensor] = []
        try:
            kind = self._kind(batch, values, inputs)
        except TypeError as error:
            self._warn(str(error))
            return self.step(batch)
        self.warnings.clear()  # of a step before, if that failed
        if kind not in self.programs:
            self.programs[kind] = self._program(batch, state, values, inputs)
        program = self.programs[kind]
        logs = self.step(batch) if program is None else program(*values, *inputs)
        while self.warnings:  # why it was not captured, now that it has run eagerly
            self._warn(self.warnings.pop())
        return logs

    def _kind(self, batch: Any, values: list[torch.Tensor], inputs: list[torch.Tensor]) -> Any:
        # Other frozen weights make another graph.
        trained = tuple([value.requires_grad for value in values])
        # So does a batch that several processes divide unevenly.
        return _read(batch, inputs), trained, self.replicas.parts

    def _drop_outdated(self) -> None:
        """Drop the programs if a number in an attribute has changed."""
        if (now := self._changes()) != self.changes:
            self.hasty = self.hasty + 1 if self.steps == 1 else 0
            self.changes, self.steps = now, 0
            if self.programs and self.how is True:
                self.how = "auto"  # to compile takes longer than to capture
            self.programs.clear()
        self.steps += 1

    def _changes(self) -> int:
        return sum([learner.compiled.changes for learner in self.learners])

    def _program(self, batch: Any, state: Any, values: Any, inputs: Any) -> Program | None:
        if self.hasty >= MOST:
            self._warn(
                f"a number in an attribute has changed after each of {MOST} steps. Make it a "
                "keras.Variable"
            )
            return None
        if len(self.programs) >= MOST:
            self._warn(
                f"it has met {MOST} kinds of batches, which differ in structure, shapes or dtypes. "
                "Pad the batches to a few shapes"
            )
            return None
        compiles = self.how is True and not self.programs  # not again for a shorter last batch
        graph = self._graph(batch, state, values, inputs, fused=not compiles)
        if graph is None or not compiles:
            return graph and self._runnable(graph, [*values, *inputs])
        try:
            return _compiled(graph, [*values, *inputs])
        except Exception as error:
            warnings.warn(
                f"'{self.system.name}' runs the captured graph itself, since inductor fails to "
                f"compile it: {_first_line(error)}",
                stacklevel=2,
            )
        self.how = "auto"
        return self._program(batch, state, values, inputs)

    def _graph(self, batch: Any, state: Any, values: Any, inputs: Any, fused: bool) -> Any:
        def step(*leaves: torch.Tensor) -> Any:
            return self.step(_filled(batch, iter(leaves)))

        before = self._changes()
        try:
            graph = _captured(step, state, self.system, values, inputs, fused)
        except Exception as error:
            self.warnings.append(_reason(error))
            return None
        if self._changes() == before:
            self.operations = sum(node.op == "call_function" for node in graph.graph.nodes)
            return graph
        self._warn("it sets an attribute to a number, which a graph does not. Use a keras.Variable")
        self.how = False  # each step would be of another kind
        return None

    def _runnable(self, graph: torch.fx.GraphModule, inputs: list[torch.Tensor]) -> Program | None:
        try:
            return _run(graph, inputs)
        except Exception as error:
            self._warn(f"its graph cannot be run: {_first_line(error)} Report this to mlsystem")
            return None

    def _warn(self, why: str) -> None:
        warnings.warn(
            f"'{self.system.name}' runs eagerly, since its step cannot be captured as one graph: "
            f"{why}, or say compile(jit_compile=False).",
            stacklevel=2,
        )


def _read(batch: Any, found: list[torch.Tensor]) -> Any:
    """Return the kind of a batch: structure, shapes and dtypes. Append its tensors to `found`."""
    if isinstance(batch, dict):
        return tuple([(key, _read(value, found)) for key, value in batch.items()])
    if isinstance(batch, (list, tuple)):
        return (type(batch), *[_read(part, found) for part in batch])
    leaf = tensor(batch)
    if leaf is None or isinstance(leaf, bool):
        return leaf
    if not isinstance(leaf, torch.Tensor):
        raise TypeError(f"the batch holds a {type(leaf).__name__}. Give tensors")
    # A tensor that occurs twice makes two inputs: in another batch they differ.
    found.append(leaf.view_as(leaf) if any(leaf is other for other in found) else leaf)
    return leaf.shape, leaf.dtype, leaf.stride()


def _filled(batch: Any, leaves: Any) -> Any:
    """Put other tensors into the structure of a batch."""
    if isinstance(batch, dict):
        return {key: _filled(value, leaves) for key, value in batch.items()}
    if isinstance(batch, (list, tuple)):
        parts = [_filled(part, leaves) for part in batch]
        return type(batch)(*parts) if hasattr(batch, "_fields") else type(batch)(parts)
    return next(leaves) if isinstance(tensor(batch), torch.Tensor) else batch


def _captured(*given: Any) -> torch.fx.GraphModule:
    """Capture a step, without the faster operations if they do not fit this Keras."""
    try:
        return capture(*given)
    except _OF_CODE as error:
        graph = capture(*given, faster=False)
        _keras.warn_of(f"Steps on torch run slower than they could: {_first_line(error)}")
        return graph


def _reason(error: Exception) -> str:
    """Say why a step cannot be captured: a line of the user's code, or another Keras."""
    innermost = traceback.extract_tb(error.__traceback__)[-1].filename
    if isinstance(error, _OF_CODE) and innermost.startswith(_OURS):
        return f"{_first_line(error)} {_keras.version()} Report this to mlsystem"
    return (
        f"{_line(error)} fails where tensors have no numbers yet: {_first_line(error)} "
        "Compute with keras.ops there (`ops.where` in place of `if`)"
    )


def _run(graph: torch.fx.GraphModule, inputs: list[torch.Tensor]) -> Program:
    # On a GPU, seeding from a variable would wait for the GPU at each draw.
    on_cpu = all(value.device.type == "cpu" for value in inputs)
    graph = graph_passes.seeded(graph) if on_cpu else graph_passes.unseeded(graph)
    return torch.inference_mode()(graph_passes.direct(graph_branches.branched(graph)).forward)


def _compiled(graph: torch.fx.GraphModule, inputs: list[Any]) -> Program:
    # On a GPU, inductor records the launches and replays them at once, if it can.
    options = {"triton.cudagraphs": any(value.is_cuda for value in inputs)}
    with torch.no_grad():
        compiled = torch._inductor.compile(graph_passes.unseeded(graph), inputs, options)
    return torch.no_grad()(compiled)


def _first_line(error: Exception) -> str:
    text = str(error).strip().splitlines()
    return f"{type(error).__name__}: {text[0] if text else ''}"


def _line(error: Exception) -> str:
    """Quote the line of the user's code that an error comes from, or else that of Keras."""
    every = traceback.extract_tb(error.__traceback__)
    frames = [frame for frame in every if frame.line] or every
    for libraries in ((_OURS, _TORCHS, _KERAS), (_OURS, _TORCHS), ()):
        if theirs := [frame for frame in frames if not frame.filename.startswith(libraries)]:
            break
    return f'"{theirs[-1].line}" ({theirs[-1].filename}, line {theirs[-1].lineno})'

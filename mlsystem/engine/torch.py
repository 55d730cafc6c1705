"""The engine on PyTorch: state in place, `torch.autograd.grad` once per distinct row."""

import contextlib
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import keras
import torch
from keras import ops, tree

from mlsystem import _keras
from mlsystem.engine import torch_branch, torch_faster, torch_rehearsal
from mlsystem.engine.torch_function import Function

# Bytes of state from which on a rehearsal runs on fake tensors: that takes longer than a copy of
# less.
LARGE = 2**26


def gradients(fn: Callable[[], Any], plan: Callable[[Any], Any], state: list[Any]) -> Any:
    """See `mlsystem.engine`."""
    again = torch.is_grad_enabled()  # someone outside will differentiate these gradients
    with torch.enable_grad():
        losses, aux = fn()
        rows = [(_total(losses, weights), variables) for weights, variables in plan(losses)]
        last = len(rows) - 1
        found = [_backward(*row, again or i < last, again) for i, row in enumerate(rows)]
    if not again:
        losses, aux = tree.map_structure(_detached, (losses, aux))
    return losses, aux, found


def _total(losses: dict[str, Any], weights: dict[str, Any]) -> Any:
    return sum(losses[name] * weight for name, weight in weights.items())


def _backward(total: Any, variables: list[Any], retain: bool, again: bool) -> list[Any]:
    if not total.requires_grad:
        return [None] * len(variables)
    inputs = [variable.value for variable in variables]
    found = torch.autograd.grad(
        total, inputs, retain_graph=retain, create_graph=again, allow_unused=True
    )
    return list(found)


def _detached(x: Any) -> Any:
    return x.detach() if isinstance(x, torch.Tensor) else x


def grad(fn: Callable[[Any], Any]) -> Callable[[Any], Any]:
    """See `mlsystem.engine`."""

    def gradient(x: Any) -> Any:
        again = torch.is_grad_enabled()  # someone outside will differentiate this gradient
        with torch.enable_grad():
            x = tree.map_structure(_input, x)
            flat = tree.flatten(x)
            total = ops.sum(fn(x))
            found = (
                torch.autograd.grad(total, flat, create_graph=again, allow_unused=True)
                if total.requires_grad
                else [None] * len(flat)
            )
        found = [torch.zeros_like(a) if g is None else g for a, g in zip(flat, found, strict=True)]
        return tree.pack_sequence_as(x, found)

    return gradient


def _input(x: Any) -> Any:
    # A tensor of its own, so that a use of `x` that does not come through the argument is constant.
    x = ops.convert_to_tensor(x)
    return x.view_as(x) if x.requires_grad else x.detach().requires_grad_()


def apply(optimizer: Any, gradients: list[Any], weights: list[Any], condition: Any = None) -> None:
    """See `mlsystem.engine`."""
    if torch_branch.is_traced() and condition is not None:
        changed = [*weights, *optimizer.variables]
        skip = not torch_branch.has(condition) and torch_faster.can_skip(optimizer, weights)
        if skip:
            changed = [optimizer.iterations]
        with torch_branch.only(condition, changed), torch_faster.only(condition if skip else None):
            optimizer.apply(gradients, weights)
    elif condition is None or bool(condition):
        optimizer.apply(gradients, weights)


def all_finite(gradients: list[Any]) -> Any:
    """See `mlsystem.engine`."""
    types = {torch.float32, *(g.dtype for g in gradients)}
    widest = torch.float64 if torch.float64 in types else torch.float32
    norms = torch._foreach_norm([g.detach() for g in gradients], 2, dtype=widest)
    return torch.stack(norms).sum() < float("inf")  # as NaN is not


def kept(value: Any) -> Any:
    """See `mlsystem.engine`."""
    copy = value.detach().clone()
    copy.version = None if value.is_inference() else value._version
    return copy


def changed(value: Any, old: Any) -> bool:
    """See `mlsystem.engine`."""
    return old.version is None or value._version != old.version


def step_scope(data: Any) -> contextlib.AbstractContextManager[Any]:
    """See `mlsystem.engine`."""
    return torch.no_grad()


def trace() -> Any:
    """See `mlsystem.engine`."""
    return None  # branches assign like all else


def random_state() -> Any:
    """See `mlsystem.engine`."""
    devices = torch.cuda.get_rng_state_all() if torch.cuda.is_available() else []
    return [state.numpy() for state in (torch.get_rng_state(), *devices)]


def set_random_state(state: Any) -> None:
    """See `mlsystem.engine`."""
    state = [torch.from_numpy(array.copy()) for array in state]
    torch.set_rng_state(state[0])
    if torch.cuda.is_available():
        torch.cuda.set_rng_state_all(state[1:])


def train_function(system: Any) -> Callable[..., Any]:
    """See `mlsystem.engine`."""
    return Function(system, system.train_step)


def test_function(system: Any) -> Callable[..., Any]:
    """See `mlsystem.engine`."""
    return Function(system, system.test_step)


@contextlib.contextmanager
def predict_scope(system: Any) -> Iterator[None]:
    """See `mlsystem.engine`."""
    # Here Keras knows neither several steps per execution nor a step that compiles in one piece.
    before = system.steps_per_execution, system.jit_compile
    system.steps_per_execution, system.jit_compile = 1, False
    try:
        yield
    finally:
        system.steps_per_execution, system.jit_compile = before


def rehearse(step: Any, data: Any, state: list[Any]) -> None:
    """See `mlsystem.engine`."""
    learner = step.__self__
    is_large = sum(value.nbytes for value in _keras.values(state)) >= LARGE
    if is_large and not (learner.run_eagerly or learner._mlsystem.given.jit_compile is False):
        try:
            torch_rehearsal.rehearse(step, data, [*state, _keras.global_seed()])
            return
        except Warning:  # said once, where warnings are errors
            raise
        except Exception:  # where it fails on numbers too, it says more clearly why
            pass
    with _kept(learner, [*state, _keras.global_seed()]), _seeds_kept():
        step(data)


@contextlib.contextmanager
def _seeds_kept() -> Iterator[None]:
    """Puts generators back that are drawn from, also those that belong to no model."""
    random, before = _keras.torch_modules().random, {}
    draw = random.draw_seed

    def noted(seed: Any) -> Any:
        if isinstance(seed, keras.random.SeedGenerator) and id(seed) not in before:
            before[id(seed)] = seed.state, seed.state.value.detach().clone()
        return draw(seed)

    random.draw_seed = noted
    try:
        yield
    finally:
        random.draw_seed = draw
        for state, value in before.values():
            state.assign(value)


@contextlib.contextmanager
def _kept(module: Any, state: list[Any]) -> Iterator[None]:
    """Puts variables, and the buffers of a module, back to what they were."""
    values = [variable.value for variable in state] + list(module.buffers())
    before = [value.detach().clone() for value in values]
    try:
        yield
    finally:
        with torch.no_grad():
            for value, old in zip(values, before, strict=True):
                value.copy_(old)


def trial(fn: Callable[[Any], Any], learner: Any) -> Callable[[Any], Any]:
    """See `mlsystem.engine`."""

    def run(data: Any) -> Any:
        with _kept(learner, [*learner._mlsystem.state_variables(), _keras.global_seed()]):
            return fn(data)

    return run


def peek(system: Any, *given: Any) -> tuple[Any, tuple[Any, ...]]:
    """See `mlsystem.engine`."""
    [batches] = given
    return next(iter(batches), None), given


def runs_ahead() -> bool:
    """See `mlsystem.engine`."""
    return torch.cuda.is_available()


def reshuffle(epoch: Any) -> None:
    """See `mlsystem.engine`."""


def reads_ahead() -> bool:
    """See `mlsystem.engine`."""
    return False


@contextlib.contextmanager
def aside(system: Any) -> Iterator[None]:
    """See `mlsystem.engine`."""
    before = [(module, module.training) for module in system.modules()]
    try:
        yield
    finally:
        for module, mode in before:
            module.training = mode


def profile(folder: str) -> Callable[[], tuple[Path, str]]:
    """See `mlsystem.engine`."""
    profiler = torch.profiler.profile()
    profiler.start()

    def stop() -> tuple[Path, str]:
        profiler.stop()
        path = Path(folder) / "trace.json"
        profiler.export_chrome_trace(str(path))
        return path, "Open it at https://ui.perfetto.dev, or at chrome://tracing in Chrome."

    return stop


def as_layer(net: Any) -> Any:
    """See `mlsystem.engine`."""
    if isinstance(net, torch.nn.Module) and not isinstance(net, keras.Layer):
        return keras.layers.TorchModuleWrapper(net)
    return net

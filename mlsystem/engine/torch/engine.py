"""The engine on PyTorch: one backward pass per group of models that follow the same losses."""

import contextlib
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import keras
import torch
from keras import ops, tree

from mlsystem import _keras
from mlsystem.engine.base import Engine, Forward, Plan, Routed, State, weighted_sum
from mlsystem.engine.torch import capture, fused_ops, graph_branches
from mlsystem.engine.torch.compiled_step import CompiledStep


class TorchEngine(Engine):
    """See `Engine`."""

    name = "torch"

    def gradients(self, fn: Forward, plan: Plan, state: State) -> Routed:
        again = torch.is_grad_enabled()  # someone outside will differentiate these gradients
        with torch.enable_grad():
            losses, aux = fn()
            rows = [(weighted_sum(losses, w), [v.value for v in into]) for w, into in plan(losses)]
            last = len(rows) - 1
            started = [
                self.replicas.mean_later(_backward(*row, again or i < last, again), again)
                for i, row in enumerate(rows)
            ]
            found = [averaged() for averaged in started]
        if not again:
            losses, aux = tree.map_structure(_detached, (losses, aux))
        return losses, aux, found

    def grad(self, fn: Callable[[Any], Any]) -> Callable[[Any], Any]:
        def gradient(x: Any) -> Any:
            again = torch.is_grad_enabled()  # someone outside will differentiate this gradient
            with torch.enable_grad():
                x = tree.map_structure(_input, x)
                flat = tree.flatten(x)
                found = _backward(ops.sum(fn(x)), flat, again, again)
            pairs = zip(flat, found, strict=True)
            found = [torch.zeros_like(a) if g is None else g for a, g in pairs]
            return tree.pack_sequence_as(x, found)

        return gradient

    def all_finite(self, gradients: list[Any]) -> Any:
        types = {torch.float32, *(g.dtype for g in gradients)}
        widest = torch.float64 if torch.float64 in types else torch.float32
        norms = torch._foreach_norm([g.detach() for g in gradients], 2, dtype=widest)
        return torch.stack(norms).sum() < float("inf")  # as NaN is not

    def apply(
        self, optimizer: Any, gradients: list[Any], weights: list[Any], condition: Any = None
    ) -> None:
        if graph_branches.is_traced() and condition is not None:
            skip = not graph_branches.has(condition) and fused_ops.can_skip(optimizer, weights)
            changed = [optimizer.iterations] if skip else [*weights, *optimizer.variables]
            with (
                graph_branches.only(condition, changed),
                fused_ops.only(condition if skip else None),
            ):
                optimizer.apply(gradients, weights)
        elif condition is None or bool(condition):
            optimizer.apply(gradients, weights)

    def kept(self, value: Any) -> Any:
        copy = value.detach().clone()
        copy.version = None if value.is_inference() else value._version
        return copy

    def read_later(self, value: Any) -> Callable[[], Any]:
        if not value.is_cuda:
            return super().read_later(value)
        # A plain copy would wait for all steps that are queued by then.
        copied: Any = torch.cuda.Event  # has no annotations
        copy, copied = torch.empty_like(value, device="cpu", pin_memory=True), copied()
        copy.copy_(value.detach(), non_blocking=True)
        copied.record()

        def read() -> Any:
            copied.synchronize()
            return copy.numpy()

        return read

    def changed(self, value: Any, old: Any) -> bool:
        return old.version is None or value._version != old.version

    def train_function(self, system: Any) -> Callable[..., Any]:
        return CompiledStep(system, system.train_step, self.replicas)

    def test_function(self, system: Any) -> Callable[..., Any]:
        return CompiledStep(system, system.test_step, self.replicas)

    def vectorized(self, fn: Callable[[Any], Any], elements: Any, draws: bool) -> Any:
        if not draws:
            return super().vectorized(fn, elements, draws)
        # A generator is seeded from a number, which `vmap` does not have: one element at a time.
        count = len(tree.flatten(elements)[0])
        found = [fn(tree.map_structure(lambda x, i=i: x[i], elements)) for i in range(count)]
        return tree.map_structure(lambda *parts: torch.stack(parts), *found)

    def devices(self) -> list[str]:
        names = [torch.cuda.get_device_name(i) for i in range(torch.cuda.device_count())]
        return names or ["cpu"]

    def compiler(self, system: Any, step: Any = None) -> str:
        how = system._mlsystem.given.jit_compile
        trained = getattr(system.train_function, "steps", {}).values()
        steps = list(trained) if step is None else [step]
        never = bool(steps) and all(step.how is False for step in steps)  # it cannot be captured
        if how is False or system.run_eagerly or never:
            return ""
        size = max((step.operations for step in steps), default=0)
        parts = ["captured graph", "inductor" if how is True else "", f"{size:,} operations"]
        return f"torch ({', '.join(part for part in parts[: 3 if size else 2] if part)})"

    @contextlib.contextmanager
    def discarding(self, learner: Any) -> Iterator[None]:
        with _buffers_restored(learner), super().discarding(learner):
            yield

    @contextlib.contextmanager
    def predict_scope(self, system: Any) -> Iterator[None]:
        # Keras on torch can neither run several steps per execution nor compile a whole step.
        before = system.steps_per_execution, system.jit_compile
        system.steps_per_execution, system.jit_compile = 1, False
        try:
            yield
        finally:
            system.steps_per_execution, system.jit_compile = before

    def step_scope(self, data: Any) -> contextlib.AbstractContextManager[Any]:
        return torch.no_grad()

    def runs_ahead(self) -> bool:
        return torch.cuda.is_available()

    def _rehearse_on_shapes(self, step: Any, data: Any, state: list[Any]) -> bool:
        if step.__self__._mlsystem.given.jit_compile is False:
            return False
        try:
            capture.rehearse(step, data, [*state, _keras.global_seed()])
        except Warning:  # said once, where warnings are errors
            raise
        except Exception:  # where it fails on numbers too, it says more clearly why
            return False
        return True

    @contextlib.contextmanager
    def _restored(self, learner: Any, state: list[Any]) -> Iterator[None]:
        with _buffers_restored(learner), super()._restored(learner, state), _seeds_restored():
            yield

    def buffers(self, system: Any) -> Callable[[], None]:
        return _kept_buffers(system)

    def device_memory(self) -> int | None:
        return torch.cuda.mem_get_info()[1] if torch.cuda.is_available() else None

    def is_out_of_memory(self, error: BaseException) -> bool:
        texts = ("can't allocate memory", "not enough memory")  # of the allocator on a CPU
        return isinstance(error, (torch.OutOfMemoryError, MemoryError)) or any(
            text in str(error) for text in texts
        )

    def peek(self, system: Any, *given: Any) -> tuple[Any, tuple[Any, ...]]:
        return next(iter(given[0]), None), given

    def random_state(self) -> Any:
        devices = torch.cuda.get_rng_state_all() if torch.cuda.is_available() else []
        return [state.numpy() for state in (torch.get_rng_state(), *devices)]

    def set_random_state(self, state: Any) -> None:
        state = [torch.from_numpy(array.copy()) for array in state]
        torch.set_rng_state(state[0])
        if torch.cuda.is_available():
            torch.cuda.set_rng_state_all(state[1:])

    @contextlib.contextmanager
    def aside(self, system: Any) -> Iterator[None]:
        before = [(module, module.training) for module in system.modules()]
        try:
            yield
        finally:
            for module, mode in before:
                module.training = mode

    @contextlib.contextmanager
    def tracing(self, model: Any) -> Iterator[None]:
        def forward(*args: Any, **kwargs: Any) -> Any:
            return type(model).forward(model, *args, **kwargs)

        # A tracer refuses constants that require a gradient, and adds the defaults of `forward`
        # to the inputs.
        trained = [v.value for v in model.variables if v.value.requires_grad]
        with self.aside(model):
            try:
                for value in trained:
                    value.requires_grad_(False)
                vars(model)["forward"] = forward
                yield
            finally:
                del vars(model)["forward"]
                for value in trained:
                    value.requires_grad_(True)

    @contextlib.contextmanager
    def full_precision(self) -> Iterator[None]:
        matmul = torch.backends.cuda.matmul
        before, matmul.allow_tf32 = matmul.allow_tf32, False
        try:
            with torch.backends.cudnn.flags(allow_tf32=False):
                yield
        finally:
            matmul.allow_tf32 = before

    def profile(self, folder: str) -> Callable[[], tuple[Path, str]]:
        profiler = torch.profiler.profile()
        profiler.start()

        def stop() -> tuple[Path, str]:
            profiler.stop()
            path = Path(folder) / "trace.json"
            profiler.export_chrome_trace(str(path))
            return path, "Open it at https://ui.perfetto.dev, or at chrome://tracing in Chrome."

        return stop

    def as_layer(self, net: Any) -> Any:
        is_module = isinstance(net, torch.nn.Module) and not isinstance(net, keras.Layer)
        return keras.layers.TorchModuleWrapper(net) if is_module else net


def _backward(total: Any, inputs: list[Any], retain: bool, again: bool) -> list[Any]:
    if not total.requires_grad:
        return [None] * len(inputs)
    found = torch.autograd.grad(
        total, inputs, retain_graph=retain, create_graph=again, allow_unused=True
    )
    return list(found)


def _detached(x: Any) -> Any:
    return x.detach() if isinstance(x, torch.Tensor) else x


def _input(x: Any) -> Any:
    # A copy, so that a use of `x` that does not come through the argument is constant.
    x = ops.convert_to_tensor(x)
    return x.view_as(x) if x.requires_grad else x.detach().requires_grad_()


@contextlib.contextmanager
def _buffers_restored(module: Any) -> Iterator[None]:
    """Restore the buffers of modules that Keras does not know as variables."""
    restore = _kept_buffers(module)
    try:
        yield
    finally:
        restore()


def _kept_buffers(module: Any) -> Callable[[], None]:
    before = [(buffer, buffer.detach().clone()) for buffer in module.buffers()]

    def restore() -> None:
        with torch.no_grad():
            for buffer, old in before:
                buffer.copy_(old)

    return restore


@contextlib.contextmanager
def _seeds_restored() -> Iterator[None]:
    """Restore the generators that are drawn from, also those that belong to no model."""
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

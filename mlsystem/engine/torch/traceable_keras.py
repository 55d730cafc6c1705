"""Replace functions of Keras that cannot be traced on fake tensors (seeds, `ops.cond`, scatter).

- Keras seeds a generator from the number in a seed variable. The replacement marks the draw, and
  the graph seeds a generator in each run (`graph_passes.py`).
- `ops.cond` asks for the value of its condition. The replacement runs both branches, each on
  copies of the tensors that it writes to, and selects the values.
- `alpha=` of a foreach operation may be a tensor, which torch reads as a number. The replacement
  multiplies first.
- `ops.scatter` reads its indices one by one. The replacement uses all at once.
- Nadam divides by NumPy numbers. The replacement divides by tensors.

`fused_ops.py` has replacements that are only faster. All threads share these functions. One thread
traces at a time, and the others keep calling the functions of Keras.
"""

import contextlib
import functools
import threading
from collections.abc import Callable, Iterator, Sequence
from types import SimpleNamespace
from typing import Any

import torch
from keras import ops, tree
from torch.utils._python_dispatch import TorchDispatchMode

from mlsystem import _keras
from mlsystem.engine.torch import fused_ops, graph_branches

_lock = threading.RLock()
_of_keras = _keras.torch_modules()
# For Nadam, in place of the module `core`.
_tensors_only = SimpleNamespace(
    **vars(getattr(_of_keras.nadam, "core", SimpleNamespace()))
    | {"convert_to_numpy": lambda tensor: tensor}
)


@contextlib.contextmanager
def traceable(state: list[Any], fused: bool, faster: bool) -> Iterator[None]:
    """Replace these functions while a step is traced, if this version of Keras has them."""
    replaced: fused_ops.Replaced = [
        (_of_keras.random, "torch_seed_generator", _mark_draw),
        (_of_keras.core, "cond", cond := _selecting(state)),
        (_of_keras.ops, "cond", cond),
        (_of_keras.core, "scatter", _scatter),
        (_of_keras.nadam, "core", _tensors_only),
        (torch, "_foreach_add_", _tensor_alpha(torch._foreach_add_)),
        *(fused_ops.replaced(_of_keras, fused) if faster else []),
    ]
    with _lock, contextlib.ExitStack() as stack:
        stack.enter_context(graph_branches.allowed(fused))
        for owner, name, function in replaced:
            if hasattr(owner, name):
                stack.enter_context(_replaced(owner, name, function))
        yield


@contextlib.contextmanager
def drawing_freely() -> Iterator[None]:
    """Let random draws be traced for a file. They use the generator of what runs the file."""
    with _lock, contextlib.ExitStack() as stack:
        if hasattr(_of_keras.random, "torch_seed_generator"):
            stack.enter_context(
                _replaced(_of_keras.random, "torch_seed_generator", lambda seed: None)
            )
        yield


@contextlib.contextmanager
def _replaced(owner: Any, name: str, other: Any) -> Iterator[None]:
    before = getattr(owner, name)
    setattr(owner, name, _in_this_thread(other, before) if callable(other) else other)
    try:
        yield
    finally:
        setattr(owner, name, before)


def _in_this_thread(function: Callable[..., Any], before: Callable[..., Any]) -> Any:
    """Return a function that calls `function` in this thread, and `before` in other threads."""
    mine = threading.get_ident()

    @functools.wraps(function)
    def call(*args: Any, **kwargs: Any) -> Any:
        return (function if threading.get_ident() == mine else before)(*args, **kwargs)

    return call


def _mark_draw(seed: Any) -> None:
    # Of the module, where several processes replace it.
    first, second = _of_keras.random.draw_seed(seed)
    torch.ops.mlsystem.draw(first + second)


@contextlib.contextmanager
def swapped(state: list[Any], given: Sequence[torch.Tensor]) -> Iterator[None]:
    """Put other tensors into variables for a while."""
    before = _keras.values(state)
    try:
        _keras.set_values(state, given)
        yield
    finally:
        _keras.set_values(state, before)


@contextlib.contextmanager
def swapped_in_module(
    module: torch.nn.Module, values: Sequence[torch.Tensor], given: Sequence[torch.Tensor]
) -> Iterator[None]:
    """Put other tensors into modules for a while. Modules share parameters with variables."""
    other = {id(value): tensor for value, tensor in zip(values, given, strict=True)}
    shared: list[tuple[dict[str, Any], str, torch.Tensor]] = [
        (owner, name, tensor)
        for part in module.modules()
        for owner in (part._parameters, part._buffers)
        for name, tensor in owner.items()
        if tensor is not None and id(tensor) in other
    ]
    for owner, name, tensor in shared:
        owner[name] = other[id(tensor)]
    try:
        yield
    finally:
        for owner, name, tensor in shared:
            owner[name] = tensor


def _selecting(state: list[Any]) -> Callable[..., Any]:
    def cond(pred: Any, true_fn: Callable[[], Any], false_fn: Callable[[], Any]) -> Any:
        if not isinstance(pred, torch.Tensor):
            return true_fn() if pred else false_fn()
        values = _keras.values(state)
        known = {id(value): value for value in values}
        (if_true, new), (if_false, other) = (_branch(values, fn) for fn in (true_fn, false_fn))
        # Select before anything is written: a branch may return a variable itself.
        selected = tree.map_structure(functools.partial(_selected, pred), if_true, if_false)
        with torch.no_grad():
            for key in dict.fromkeys([*new, *other]):
                value = known[key]
                value.copy_(torch.where(pred.bool(), new.get(key, value), other.get(key, value)))
        return selected

    return cond


def _selected(pred: torch.Tensor, if_true: Any, if_false: Any) -> Any:
    if if_true is None:
        return None
    value = ops.where(pred.bool(), if_true, if_false)
    if value.requires_grad:  # infinite values in the other branch would make gradients NaN
        value.register_hook(_refuse)
    return value


def _refuse(*args: Any, **kwargs: Any) -> Any:
    raise RuntimeError("A captured step cannot differentiate a branch of `ops.cond`.")


def _branch(values: list[Any], fn: Callable[[], Any]) -> tuple[Any, dict[int, torch.Tensor]]:
    """Run a branch. Return its result and its copies of written tensors, by the id of those."""
    with _replaced(torch.autograd, "grad", _refuse), _CopyOnWrite(values) as mode:
        result = fn()
    return tree.map_structure(mode.present, result), mode.copies


class _CopyOnWrite(TorchDispatchMode):  # type: ignore[no-untyped-call]
    """Lets operations write to copies of some tensors, and read these copies from then on."""

    def __init__(self, tensors: list[torch.Tensor]) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self.tensors = {id(tensor): tensor for tensor in tensors}
        self.copies: dict[int, torch.Tensor] = {}

    def present(self, leaf: Any) -> Any:
        """Return the copy of a tensor, or the tensor if it has no copy."""
        return self.copies.get(id(leaf), leaf)

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        kwargs = kwargs or {}
        for argument, given in zip(func._schema.arguments, args, strict=False):
            if argument.alias_info is not None and argument.alias_info.is_write:
                self._copy(tree.flatten(given))
        args, kwargs = tree.map_structure(self.present, (args, kwargs))
        return func(*args, **kwargs)

    def _copy(self, written: list[Any]) -> None:
        for leaf in written:
            if id(leaf) in self.tensors and id(leaf) not in self.copies:
                self.copies[id(leaf)] = leaf.detach().clone()


def _scatter(indices: Any, values: Any, shape: Any) -> Any:
    indices, values = ops.convert_to_tensor(indices), ops.convert_to_tensor(values)
    depth = indices.shape[-1]
    index = indices.reshape(-1, depth).unbind(-1)
    zeros = values.new_zeros(shape)
    return zeros.index_put(index, values.reshape(-1, *shape[depth:]), accumulate=True)


def _tensor_alpha(add: Callable[..., Any]) -> Callable[..., Any]:
    def foreach_add(tensors: Any, other: Any, *, alpha: Any = 1) -> Any:
        if isinstance(alpha, torch.Tensor):
            other, alpha = torch._foreach_mul(other, alpha), 1
        # The overload for a number takes no `alpha`.
        return (
            add(tensors, other)
            if isinstance(alpha, int) and alpha == 1
            else add(tensors, other, alpha=alpha)
        )

    return foreach_add

"""Faster operations of torch with the results of Keras' own. They replace these in a trace.

- Keras makes images contiguous before a convolution, and channels-last again. That is left out.
- Keras crops the result of a transposed convolution. Padding does the same in most cases.
- Keras needs ten operations for batch norm. The replacement needs one.
- Keras needs ten operations for Adam. The replacement needs one, which no compiler can look into.
"""

import contextlib
import contextvars
import functools
from collections.abc import Callable, Iterator
from typing import Any

import torch
from keras import ops

Replaced = list[tuple[Any, str, Any]]

# The condition under which a fused Adam changes anything. The device checks it.
_condition: contextvars.ContextVar[torch.Tensor | None] = contextvars.ContextVar(
    "condition", default=None
)

# Without a kernel for fake tensors, torch would run this operation on real ones of their size.
_NO_FAKE = "aten::_fused_adam_.tensor_lr"
if not torch._C._dispatch_has_kernel_for_dispatch_key(_NO_FAKE, "Meta"):
    _library = torch.library.Library("aten", "IMPL", "Meta")  # type: ignore[no-untyped-call]
    _library.impl(_NO_FAKE, lambda *args, **kwargs: None)  # type: ignore[no-untyped-call]


def replaced(of_keras: Any, fused: bool) -> Replaced:
    """List the functions to replace: their owner, name and replacement."""
    nn: Any = of_keras.nn
    adam: Any = getattr(of_keras.adam, "Adam", None)
    found: Replaced = [*_images(nn), *_crops(nn), *_batch_norm(nn)]
    if fused and hasattr(adam, "_parallel_update_step"):
        found.append((adam, "_parallel_update_step", _fused_adam(adam._parallel_update_step)))
    return found


def _images(nn: Any) -> Replaced:
    name = "_transpose_spatial_inputs"
    if not hasattr(nn, name):
        return []
    transpose = getattr(nn, name)

    def transposed(inputs: torch.Tensor, *args: Any, **layout: Any) -> Any:
        if inputs.ndim == 4:
            return inputs.permute(0, 3, 1, 2)
        return transpose(inputs, *args, **layout)

    return [(nn, name, transposed)]


def _crops(nn: Any) -> Replaced:
    name = "compute_conv_transpose_output_crops_for_torch"
    if not hasattr(nn, name):
        return []
    crops_of, transpose = getattr(nn, name), torch.nn.functional.conv_transpose2d
    padding: list[list[int]] = []

    def crops(*args: Any, **kwargs: Any) -> Any:
        found = crops_of(*args, **kwargs)
        if len(found) != 2 or any(left != right or left < 0 for left, right in found):
            return found
        padding.append([left for left, _ in found])
        return [(0, 0), (0, 0)]

    def padded(*args: Any, **kwargs: Any) -> Any:
        return transpose(*args, **kwargs | ({"padding": padding.pop()} if padding else {}))

    return [(nn, name, crops), (torch.nn.functional, "conv_transpose2d", padded)]


def _batch_norm(nn: Any) -> Replaced:
    """Replace `moments` and `batch_normalization`, where the first has the input of the second."""
    if not hasattr(nn, "moments") or not hasattr(nn, "batch_normalization"):
        return []
    moments, normalize = nn.moments, nn.batch_normalization
    known: dict[int, tuple[Any, ...]] = {}

    @functools.wraps(moments)
    def noted(x: Any, axes: Any, *args: Any, **kwargs: Any) -> Any:
        mean, variance = moments(x, axes, *args, **kwargs)
        if not isinstance(axes, int):
            known[id(mean)] = mean, variance, x, {axis % x.ndim for axis in axes}
        return mean, variance

    def batch_normalization(
        x: Any,
        mean: Any,
        variance: Any,
        axis: int,
        offset: Any = None,
        scale: Any = None,
        epsilon: float = 1e-3,
    ) -> Any:
        _, spread, source, axes = known.pop(id(mean), (None, None, None, None))
        whole = axes == set(range(x.ndim)) - {axis % x.ndim} and mean.ndim == 1
        if source is not x or spread is not variance or not whole or not _fits_norm(x, axis):
            return normalize(x, mean, variance, axis, offset, scale, epsilon)
        return torch.nn.functional.batch_norm(
            x.movedim(axis, 1), None, None, scale, offset, training=True, eps=epsilon
        ).movedim(1, axis)

    return [(nn, "moments", noted), (nn, "batch_normalization", batch_normalization)]


def _fits_norm(x: torch.Tensor, axis: int) -> bool:
    """Tell whether torch takes the input and keeps its layout."""
    return x.ndim in (2, 4) and x.is_contiguous() and x.numel() > x.shape[axis]


def _fused_adam(update: Callable[..., Any]) -> Callable[..., Any]:
    def fused(self: Any, grads: list[Any], variables: list[Any], learning_rate: Any) -> None:
        values = [variable.value for variable in variables]
        if self.amsgrad or not all(_fits(value) for value in values):
            update(self, grads, variables, learning_rate)
            return
        index = [self._get_variable_index(variable) for variable in variables]
        # Keras corrects the bias in the step size. After infinitely many steps torch has none.
        steps = [torch.full((), float("inf"), device=values[0].device)] * len(values)
        torch._fused_adam_(
            values,
            [gradient.contiguous() for gradient in grads],
            [self._momentums[i].value for i in index],
            [self._velocities[i].value for i in index],
            [],
            steps,
            lr=_step_size(self, learning_rate),
            beta1=self.beta_1,
            beta2=self.beta_2,
            weight_decay=0.0,
            eps=self.epsilon,
            amsgrad=False,
            maximize=False,
            found_inf=_skipped(),
        )

    fused.is_fused = True  # type: ignore[attr-defined]
    return fused


@contextlib.contextmanager
def only(condition: torch.Tensor | None) -> Iterator[None]:
    """Let a fused Adam change weights and moments only if a condition holds."""
    before = _condition.set(condition)
    try:
        yield
    finally:
        _condition.reset(before)


def _skipped() -> torch.Tensor | None:
    condition = _condition.get()
    return None if condition is None else torch.logical_not(condition).float()


def can_skip(optimizer: Any, weights: list[Any]) -> bool:
    """Tell whether an update changes the count, and else only what a fused Adam changes."""
    is_fused = hasattr(getattr(optimizer, "_parallel_update_step", None), "is_fused")
    more = ("weight_decay", "use_ema", "gradient_accumulation_steps", "amsgrad")
    changes_more = any(getattr(optimizer, name, None) for name in more)
    return is_fused and not changes_more and all(_fits(w.value) for w in weights)


def _fits(value: torch.Tensor) -> bool:
    return value.dtype == torch.float32 and value.is_contiguous()


def _step_size(adam: Any, learning_rate: Any) -> Any:
    """Compute the step size of Adam with both corrections (Kingma & Ba 2015, section 2)."""
    step = ops.cast(adam.iterations + 1, "float32")
    first, second = (1 - ops.power(beta, step) for beta in (adam.beta_1, adam.beta_2))
    return ops.cast(learning_rate, "float32") * ops.sqrt(second) / first

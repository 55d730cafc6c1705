"""Call a user's `loss` or `compute_losses` with the arguments that it names."""

import functools
import inspect
from collections.abc import Callable
from typing import Any

from mlsystem._errors import add_place
from mlsystem._signature import extras

_PARTS = ("x", "y", "outputs")


def call(
    owner: Any, method: str, where: str, parts: tuple[Any, ...], sample_weight: Any, training: Any
) -> tuple[Any, bool]:
    """Call a method of a model. Return its result, and whether it took the sample weights.

    Args:
        owner: the model or system.
        method: the name of the method.
        where: the name of the method in errors that are raised inside.
        parts: `x`, `y` and `outputs`. If the method uses other names, it gets them by position.
        sample_weight: passed if the method names it.
        training: passed if the method names it.
    """
    bound = getattr(owner, method)
    fn = getattr(bound, "__func__", bound)
    placed, named = _arguments(fn, fn is not bound, f"{type(owner).__name__}.{method}")
    given = dict(zip(_PARTS, parts, strict=True), sample_weight=sample_weight, training=training)
    try:
        value = bound(*(parts if placed else ()), **{name: given[name] for name in named})
    except Exception as error:
        add_place(error, where, outputs=parts[2], y=parts[1], x=parts[0])
        raise
    return value, "sample_weight" in named


@functools.lru_cache(512)
def _arguments(fn: Callable[..., Any], is_method: bool, where: str) -> tuple[bool, tuple[str, ...]]:
    """Return whether a method takes its parts by position, and the arguments passed by name."""
    parameters = list(inspect.signature(fn).parameters.values())[is_method:]
    free = [p for p in parameters if p.kind in (p.POSITIONAL_ONLY, p.POSITIONAL_OR_KEYWORD)]
    offered = tuple(extras(fn, sample_weight=None, training=None))
    if any(p.kind is p.VAR_POSITIONAL for p in parameters):
        return True, offered
    known, names = (*_PARTS, *offered), [p.name for p in free]
    is_named = all(p.name in known for p in free if p.default is p.empty)
    if is_named and not any(p.kind is p.POSITIONAL_ONLY for p in free):
        return False, (*extras(fn, x=None, y=None, outputs=None), *offered)
    in_place = all(
        n == given or given not in known for n, given in zip(_PARTS, names, strict=False)
    )
    if len(free) < 3 or not in_place or _is_swapped(names):
        raise TypeError(
            f"{where} takes ({', '.join(names)}). Name what it needs of "
            "`x, y, outputs, sample_weight, training`: y are the targets of the batch, and "
            "outputs is what `forward` returned."
        )
    return True, offered


def _is_swapped(names: list[str]) -> bool:
    """Return whether targets and predictions are in the places of a Keras loss function."""
    places = {"y_true": 1, "y_pred": 2}
    return any(name in places and i != places[name] for i, name in enumerate(names))

"""Call users' functions with only the arguments that they name."""

import functools
import inspect
from collections.abc import Callable
from typing import Any

from mlsystem._checks import did_you_mean, nearest


def by_name(fn: Any) -> Any:
    """Let Keras pass `*inputs` and `**kwargs` by name, as it does when it builds a layer."""
    kinds = {p.kind: name for name, p in inspect.signature(fn).parameters.items()}
    args = kinds.get(inspect.Parameter.VAR_POSITIONAL, "")
    kwargs = kinds.get(inspect.Parameter.VAR_KEYWORD, "")
    if not args and not kwargs:
        return fn

    @functools.wraps(fn)
    def call(self: Any, *given: Any, **named: Any) -> Any:
        given += tuple(named.pop(args, ()))
        named |= named.pop(kwargs, {})
        return call.__wrapped__(self, *given, **named)  # a reloaded module replaces it

    return call


@functools.lru_cache(512)
def _taken(fn: Callable[..., Any], names: tuple[str, ...]) -> tuple[str, ...]:
    """Return the arguments that a function names. If it takes `**kwargs`, return all of them."""
    parameters = _signature(fn).parameters
    takes_all = any(p.kind is p.VAR_KEYWORD for p in parameters.values())
    return tuple(name for name in names if takes_all or name in parameters)


@functools.lru_cache(512)
def _signature(fn: Callable[..., Any]) -> inspect.Signature:
    return inspect.signature(fn)


def bind(method: Any, *args: Any, **kwargs: Any) -> inspect.BoundArguments:
    """Return the arguments of a call of a method, including `self` and the defaults."""
    try:
        call = _signature(method.__func__).bind(method.__self__, *args, **kwargs)
    except TypeError as error:
        known = _known(method)
        near = _nearest([name for name in kwargs if name not in known], known)
        raise TypeError(f"{method.__name__} {error}.{near} It takes {', '.join(known)}.") from None
    call.apply_defaults()
    return call


def _known(method: Any) -> list[str]:
    """Return the arguments of a method, and the keyword arguments of methods that override it."""
    names = dict.fromkeys(_signature(method.__func__).parameters)
    for cls in type(method.__self__).__mro__:
        if inspect.isfunction(fn := vars(cls).get(method.__name__)):
            found = _signature(fn).parameters.items()
            names |= dict.fromkeys(name for name, p in found if p.kind is p.KEYWORD_ONLY)
    return [name for name in names if name != "self"]


def _nearest(wrong: list[str], known: list[str]) -> str:
    """Return a question for the known name that is nearest to a wrong one. Empty if none is."""
    near = (nearest(name, known, 0.65) for name in wrong)
    return did_you_mean(next(filter(None, near), None))


def extras(fn: Callable[..., Any], **given: Any) -> dict[str, Any]:
    """Return the offered arguments that a user's function names."""
    return {name: given[name] for name in _taken(getattr(fn, "__func__", fn), tuple(given))}


def _is_swapped(names: list[str]) -> bool:
    """Return whether targets and predictions are in the places of a Keras loss function."""
    places = {"y_true": 1, "y_pred": 2}
    return any(name in places and i != places[name] for i, name in enumerate(names))


def call_loss(owner: Any, name: str, parts: tuple[Any, ...], offered: dict[str, Any]) -> Any:
    """Call a user's loss method with the arguments of `x, y, outputs` that it names, in any order.

    If the method uses other names, the three arguments are passed by position.
    """
    method = getattr(owner, name)
    fn, where = getattr(method, "__func__", method), f"{type(owner).__name__}.{name}"
    named = _named_parts(fn, fn is not method, tuple(offered), where)
    if named is None:
        return method(*parts, **offered)
    return method(**{part: parts[_PARTS.index(part)] for part in named}, **offered)


_PARTS = ("x", "y", "outputs")


@functools.lru_cache(512)
def _named_parts(
    fn: Callable[..., Any], is_method: bool, offered: tuple[str, ...], where: str
) -> tuple[str, ...] | None:
    """Return the parts that a loss method names. None if it takes them by position."""
    parameters = list(_signature(fn).parameters.values())[is_method:]
    free = [p for p in parameters if p.kind in (p.POSITIONAL_ONLY, p.POSITIONAL_OR_KEYWORD)]
    if any(p.kind is p.VAR_POSITIONAL for p in parameters):
        return None
    known, names = (*_PARTS, *offered), [p.name for p in free]
    is_named = all(p.name in known for p in free if p.default is p.empty)
    if is_named and not any(p.kind is p.POSITIONAL_ONLY for p in free):
        return _taken(fn, _PARTS)
    in_place = all(
        n == given or given not in known for n, given in zip(_PARTS, names, strict=False)
    )
    if len(free) < 3 or not in_place or _is_swapped(names):
        raise TypeError(
            f"{where} takes ({', '.join(names)}). Name what it needs of "
            "`x, y, outputs, sample_weight, training`: y are the targets of the batch, and "
            "outputs is what `forward` returned."
        )
    return None

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

"""Names of models as users write them: one model, or a group such as a list or a nested system."""

from collections.abc import Iterable, Mapping, Sequence
from typing import Any


def named(name: str, names: Iterable[str]) -> list[str]:
    """Return the names that a name stands for: itself, or the members of its list or system."""
    return [n for n in names if n == name or n.startswith(f"{name}/")]


def resolve(asked: Any, names: Sequence[str], what: str) -> list[str]:
    """Return the requested names, with groups expanded, in the requested order and each once."""
    is_one = isinstance(asked, str) or not isinstance(asked, Iterable)
    asked = [asked] if is_one else list(asked)
    found: dict[str, None] = {}
    for name in asked:
        if not isinstance(name, str) or not (members := named(name, names)):
            private = isinstance(name, str) and name.startswith("_")
            hint = " A model whose name begins with an underscore is no member." if private else ""
            raise ValueError(f"{what} names {name!r}, which does not exist. {listing(names)}{hint}")
        found |= dict.fromkeys(members)
    return list(found)


def listing(names: Iterable[str]) -> str:
    """Return the end of an error message: the names that do exist."""
    return f"Those that exist: {', '.join(repr(n) for n in names) or 'none'}."


def by_name(given: Mapping[str, Any], names: Sequence[str], what: str) -> dict[str, Any]:
    """Expand a dict by model or group to a dict by model. A model's own entry wins over a group."""
    spelled: dict[str, Any] = {}
    for name in sorted(given, key=lambda n: n in names if isinstance(n, str) else False):
        spelled |= dict.fromkeys(resolve([name], names, what), given[name])
    return {name: spelled[name] for name in names if name in spelled}

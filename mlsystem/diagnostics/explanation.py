"""`explain`: what one batch does, in a few lines."""

from collections.abc import Iterable, Sequence
from textwrap import wrap
from typing import Any

from mlsystem.diagnostics.aligned import aligned
from mlsystem.diagnostics.describe import describe
from mlsystem.diagnostics.description import (
    COPY,
    FROZEN,
    CallFacts,
    Description,
    LossFacts,
    ModelFacts,
    Route,
)

WIDTH, INDENT = 100, 13
FEW, MANY = 4, 9  # from so many losses, and above so many calls, lines are joined


class Explanation(str):
    """A text that a notebook and a prompt show with its line breaks."""

    __slots__ = ()

    def __repr__(self) -> str:
        return str(self)


def explain(model: Any) -> Explanation:
    """Return what one batch does to a model or system that is set up."""
    return Explanation(text(describe(model)))


def text(facts: Description) -> str:
    """Return the explanation of a system from its description."""
    sections = {
        "forward": _forward(facts),
        "losses": _losses(facts),
        "gradients": _gradients(facts),
        "update": _updates(facts),
        "compiled": [facts.compiled],
        "notes": facts.notes,
    }
    lines = [f"{facts.title}, one batch"]
    for name, said in sections.items():
        for i, line in enumerate(line for long in said for line in _wrapped(long)):
            lines.append(f"  {'' if i else name:<{INDENT - 2}}{line}".rstrip())
    return "\n".join(lines)


def _wrapped(line: str) -> list[str]:
    if len(line) <= WIDTH - INDENT:
        return [line]
    return wrap(line, WIDTH - INDENT, subsequent_indent="  ", break_long_words=False)


def _forward(facts: Description) -> list[str]:
    calls = [_call(call) for call in facts.calls] or [model.name for model in facts.models]
    if len(calls) > MANY:
        calls = ["; ".join(calls)]
    passes = facts.forward_passes
    shared = "1 forward pass, shared by all losses" if len(facts.losses) > 1 else "1 forward pass"
    return [*calls, shared if passes == 1 else f"{passes} forward passes, one per phase"]


def _call(call: CallFacts) -> str:
    outputs = f" → {', '.join(call.outputs)}" if call.outputs else ""
    return f"{call.model}({', '.join(call.sources)}){outputs}"


def _losses(facts: Description) -> list[str]:
    """Return a line for each loss. Many losses that each read their own model share one."""
    plain = [
        n.name for n in facts.losses if list(n.models) == [n.name] and not (n.terms or n.inputs)
    ]
    if len(plain) < FEW:
        plain = []
    found = [_loss(loss) for loss in facts.losses if loss.name not in plain]
    return [*([f"{_listed(plain)}, each from its model"] if plain else []), *found]


def _loss(loss: LossFacts) -> str:
    terms = f" = {' + '.join(loss.terms)}" if loss.terms else ""
    sources = [*loss.models, *loss.inputs]
    return f"{loss.name}{terms}{f', from {_listed(sources)}' if sources else ''}"


def _listed(names: Sequence[str]) -> str:
    return " and ".join([", ".join(names[:-1]), names[-1]] if len(names) > 1 else names)


def _gradients(facts: Description) -> list[str]:
    """Return a line for each set of models that follow the same losses."""
    groups: dict[str, list[str]] = {}
    for model in facts.models:
        if said := _listed([_route(route) for route in facts.followed(model.name)]):
            groups.setdefault(said, []).append(model.name)
    own = [n for said, [n, *more] in groups.items() if said == f"{n} × 1" and not more]
    if len(own) >= FEW:
        groups = {said: names for said, names in groups.items() if names[0] not in own}
        groups["the loss of its own name × 1"] = own
    number = facts.backward_passes
    found = [f"{_listed(names)} {_verb(names, own)} {said}" for said, names in groups.items()]
    return [*found, f"{number} backward pass{'' if number == 1 else 'es'}"]


def _verb(names: Sequence[str], own: Sequence[str]) -> str:
    return "follows" if len(names) == 1 else "each follow" if names is own else "follow"


def _route(route: Route) -> str:
    moves = f" now ({route.moves})" if route.moves else ""
    return f"{route.loss} {route.weight}{moves}"


def _updates(facts: Description) -> list[str]:
    rows = [[model.name, *_update(facts, model)] for model in facts.models]
    return ["  ".join(row).rstrip() for row in aligned(rows)]


def _update(facts: Description, model: ModelFacts) -> list[str]:
    if model.kind == COPY:
        return [f"follows {model.source}", f"momentum {model.momentum}"]
    if model.kind == FROZEN:
        return ["frozen" if model.weights else "no weights", ""]
    return [model.optimizer, ", ".join([*_phases(facts, model), *model.badges]) or "every batch"]


def _phases(facts: Description, model: ModelFacts) -> Iterable[str]:
    if len(facts.phases) < 2:
        return []
    numbers = [number for number, group in facts.phases if model.name in group]
    return [f"phase {', '.join(numbers)}"]

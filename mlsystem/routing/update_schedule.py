"""`phases`, `update_every`, `update_start`, `update_end`: when each model is updated."""

import functools
import math
import numbers
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from mlsystem.routing import model_names

MOST_PERIOD = 1000
MOST_VARIANTS = 8


def read_phases(phases: Any, models: Sequence[str]) -> list[list[str]]:
    """Return the models of each phase, with groups expanded. Default: one phase with all models.

    >>> read_phases([("critics",), "generator"], ["critics/0", "critics/1", "generator"])
    [['critics/0', 'critics/1'], ['generator']]
    """
    if phases is None:
        return [list(models)]
    if not isinstance(phases, (list, tuple)) or not phases or () in phases or [] in phases:
        raise ValueError(
            f"phases is {phases!r}, or has an empty phase. Give a list of groups of models, each "
            f"with a name at least: {[(model,) for model in models]}."
        )
    return [model_names.resolve(group, models, "phases") for group in phases]


def check_phases(phases: Sequence[Sequence[str]], trained: Sequence[str]) -> None:
    """Raise an error if the phases leave out a trained model."""
    if missing := [m for m in trained if not any(m in group for group in phases)]:
        raise ValueError(
            f"phases leaves out {', '.join(repr(m) for m in missing)}, which would never be "
            "updated. Name it in a phase, or freeze it with `trainable = False`."
        )


@dataclass(frozen=True)
class Turn:
    """The batches on which a model is updated.

    >>> [seen for seen in range(8) if Turn(every=2, start=3, end=7).is_due(seen)]
    [3, 5]
    """

    every: int = 1
    start: int = 0
    end: int | None = None

    def first(self) -> int:
        """Return the number of batches before the first update."""
        return (self.start // self.every + 1) * self.every - 1

    def is_due(self, seen: int) -> bool:
        """Return whether the model is updated on the batch after the first `seen` batches."""
        is_over = self.end is not None and seen >= self.end
        return seen >= self.start and not is_over and (seen + 1) % self.every == 0


def read_turns(every: Any, start: Any, end: Any, models: Sequence[str]) -> dict[str, Turn]:
    """Return the turns of the models that are not updated on every batch."""
    read = {
        "every": _numbers(every, models, "update_every", least=1),
        "start": _numbers(start, models, "update_start", least=0),
        "end": _numbers(end, models, "update_end", least=1),
    }
    turns: dict[str, Turn] = {}
    for model in models:
        turn = Turn(**{what: given[model] for what, given in read.items() if model in given})
        if turn.end is not None and turn.end <= turn.first():
            raise ValueError(
                f"'{model}' would never be updated: its update_end, {turn.end}, does not come "
                f"after its update_start, {turn.start}, and one of every {turn.every} batches."
            )
        if turn != Turn():
            turns[model] = turn
    return turns


def _numbers(given: Any, models: Sequence[str], what: str, least: int) -> dict[str, int]:
    given = {} if given is None else given
    if not isinstance(given, Mapping):
        raise ValueError(f"{what} is {given!r}; give a dict {{model: number of batches}}.")
    found = model_names.by_name(given, models, what)
    for model, n in found.items():
        if isinstance(n, bool) or not isinstance(n, numbers.Integral) or n < least:
            raise ValueError(f"{what} gives {n!r} for '{model}'; give a whole number from {least}.")
    return found


def read_conditions(update_when: Any, models: Sequence[str]) -> dict[str, Any]:
    """Return, by model, the function of the losses that decides on each update."""
    update_when = {} if update_when is None else update_when
    if not isinstance(update_when, Mapping):
        raise ValueError(
            f"update_when is {update_when!r}; give a dict {{model: function of the losses}}."
        )
    conditions = model_names.by_name(update_when, models, "update_when")
    for model, condition in conditions.items():
        if not callable(condition):
            raise ValueError(
                f"update_when gives {condition!r} for '{model}'; give a function of the losses, as "
                f"`lambda losses: losses['{model}'] > 0.5`."
            )
    return conditions


@functools.lru_cache
def variants(
    turns: tuple[tuple[str, Turn], ...], models: tuple[str, ...]
) -> tuple[frozenset[str], ...]:
    """Return all sets of models that are ever due. Empty if they are many.

    Between two starts or ends, the sets repeat after the least common multiple of `every`.

    >>> found = variants((("critic", Turn(start=3)), ("actor", Turn(every=2))), ("critic", "actor"))
    >>> [sorted(models) for models in found]
    [[], ['actor'], ['actor', 'critic'], ['critic']]
    """
    known = dict(turns)
    period = math.lcm(*(turn.every for turn in known.values()))
    if period > MOST_PERIOD:
        return ()
    starts = {0}.union(*({turn.start, turn.end or 0} for turn in known.values()))
    every = [due(known, models, start + i) for start in sorted(starts) for i in range(period)]
    found = tuple(dict.fromkeys(every))
    return found if len(found) <= MOST_VARIANTS else ()


def due(turns: Mapping[str, Turn], models: Sequence[str], seen: int) -> frozenset[str]:
    """Return the models that are updated on the batch after the first `seen` batches."""
    return frozenset(m for m in models if m not in turns or turns[m].is_due(seen))

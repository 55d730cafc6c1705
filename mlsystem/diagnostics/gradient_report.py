"""`GradientReport`: a table of gradient norms, with dead and unfollowed losses."""

from collections.abc import Iterable, Mapping
from typing import Any

from mlsystem.diagnostics.aligned import aligned, cells
from mlsystem.diagnostics.gradient_measurement import Influence
from mlsystem.routing import members, model_names

Route = tuple[str, str]


class GradientReport(dict[str, dict[str, float]]):
    """The norms of gradients on one batch: `report[loss][model]`, without loss weights.

    Use it to find losses that do not reach their models. `MLSystem.gradient_report` returns it.
    Print it to see a table.

    Attributes:
        followed: the routes `(loss, model)` where the model follows the loss.
        dead: the routes in `followed` without a gradient.
        unfollowed: the routes with a gradient where the model does not follow the loss.
        frozen: the models without weights to train. The report has no norms for them.
    """

    def __init__(
        self,
        norms: Mapping[str, Mapping[str, float]],
        followed: Iterable[Route],
        frozen: Iterable[str] = (),
        name: str = "",
    ) -> None:
        super().__init__({loss: dict(row) for loss, row in norms.items()})
        routes = [(loss, model) for loss, row in self.items() for model in row]
        known = set(followed)
        self.name, self.frozen = name, list(frozen)
        self.followed = [route for route in routes if route in known]
        self.dead = [(loss, m) for loss, m in self.followed if self[loss][m] == 0]
        self.unfollowed = [(n, m) for n, m in routes if (n, m) not in known and self[n][m] != 0]

    def __str__(self) -> str:
        models = [model for row in list(self.values())[:1] for model in row]
        lines = [["loss", *models, *self.frozen]]
        lines += [
            [loss, *(self._cell(loss, m) for m in models), *("frozen" for _ in self.frozen)]
            for loss in self
        ]
        return "\n".join(
            [
                f"The norm of the gradient of each loss in each model of '{self.name}'",
                *table(lines),
                "(1.0): the model does not follow the loss. 0.0!: it does, but gets no gradient.",
                f"Dead: {_listed(self.dead)}",
                f"Unfollowed: {_listed(self.unfollowed)}",
            ]
        )

    __repr__ = __str__

    def _cell(self, loss: str, model: str) -> str:
        text, route = f"{self[loss][model]:.4g}", (loss, model)
        if route not in self.followed:
            return f"({text})"
        return f"{text}!" if route in self.dead else text


def _listed(routes: list[Route]) -> str:
    return ", ".join(f"'{loss}' in '{model}'" for loss, model in routes) or "none"


def table(rows: list[list[str]]) -> list[str]:
    """Return rows of text as columns of equal width, with the first row as the heading.

    >>> table([["loss", "a"], ["b", "1.5"]])
    ['  loss  a', '  ----  ---', '  b     1.5']
    """
    heading, *others = aligned(rows)
    lines = [heading, ["-" * cells(text) for text in heading], *others]
    return [f"  {'  '.join(line)}".rstrip() for line in lines]


def report(system: Any, batch: Any) -> GradientReport:
    """Return the gradient report of one batch, for a system whose weights are built."""
    learner = system._mlsystem
    norms = Influence(learner)(batch)
    found = {loss: {m: n or 0.0 for m, n in row.items()} for loss, row in norms.items()}
    frozen = [name for name in members.leaves(system) if name not in learner.models()]
    return GradientReport(found, followed(learner, norms), frozen, system.name)


def followed(learner: Any, losses: Iterable[str]) -> list[Route]:
    """Return the routes `(loss, model)` where a trained model follows a loss."""
    losses = list(losses)
    rows = learner.rows(losses).items()
    return [(loss, model) for model, row in rows for loss in losses if _follows(row, loss)]


def _follows(row: Iterable[str], loss: str) -> bool:
    """Return whether a row names a loss, a loss that contains it, or a part of it."""
    return any(model_names.named(loss, [name]) or model_names.named(name, [loss]) for name in row)

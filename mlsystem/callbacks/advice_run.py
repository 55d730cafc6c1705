"""`AdviceRun`: what `Advice` has measured in one `fit`."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from mlsystem.diagnostics import advice_rules
from mlsystem.diagnostics.gradient_measurement import Norms
from mlsystem.diagnostics.gradient_report import Route


@dataclass
class AdviceRun:
    """The measurements of one `fit`, and the advice that was given.

    They are in an object because a checkpoint would restore plain lists of an earlier `fit`.
    """

    said: dict[Any, str] = field(default_factory=dict)
    losses: dict[str, list[float]] = field(default_factory=dict)
    norms: dict[Route, list[float]] = field(default_factory=dict)
    ratios: dict[str, list[float]] = field(default_factory=dict)
    epochs: dict[str, list[float]] = field(default_factory=dict)
    distances: list[float] = field(default_factory=list)
    sizes: list[float] = field(default_factory=list)
    routes: list[Route] = field(default_factory=list)
    is_new: bool | None = None  # whether no optimizer had made a step before

    def add(
        self, losses: dict[str, float], norms: Norms, ratios: dict[str, float], steps: int
    ) -> None:
        """Add a measured batch. A ratio over several steps counts as that many equal ones."""
        for name, value in losses.items():
            self.losses.setdefault(name, []).append(value)
        for loss, row in norms.items():
            for model, norm in row.items():
                self.norms.setdefault((loss, model), []).append(norm or 0.0)
        for model, ratio in ratios.items():
            self.ratios.setdefault(model, []).append(ratio / steps)

    def add_epoch(self, logs: Mapping[str, Any]) -> None:
        """Add the mean losses of an epoch."""
        for name in self.losses:
            log = f"{name}_loss" if f"{name}_loss" in logs or len(self.losses) > 1 else "loss"
            if log in logs:
                self.epochs.setdefault(name, []).append(float(logs[log]))

    def is_solved(self, losses: list[str], model: str, looks: int) -> bool:
        """Return whether the losses that reached a model are at their minimum.

        If none ever reached it, one that was zero from the start is enough.
        """
        reached = [loss for loss in losses if any(self.norms[loss, model])]
        found = [advice_rules.solved(self.losses[loss], looks) for loss in reached or losses]
        return all(found) if reached else any(found)

    def games(self) -> list[tuple[str, str]]:
        """Return pairs of models with opposed losses.

        The loss of the second depends on the first, which does not follow it. Each follows the loss
        of its own name.
        """
        own = [loss for loss, model in self.routes if loss == model]
        pairs = [(a, b) for a in own for b in own if a != b and (b, a) not in self.routes]
        return [(a, b) for a, b in pairs if any(self.norms[b, a])]

    def plays(self, model: str) -> bool:
        """Return whether a model follows a loss that reaches others which do not follow it."""
        mine = [loss for loss, other in self.routes if other == model]
        away = [route for route in self.norms if route[0] in mine and route not in self.routes]
        return any(any(self.norms[route]) for route in away)

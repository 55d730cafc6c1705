"""`Memory`: the bytes that training takes, by model and by dtype, and what would cut them."""

import collections
import math
import re
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from keras import tree

from mlsystem import _keras, _learner
from mlsystem.diagnostics import memory_savings
from mlsystem.diagnostics.gradient_report import table
from mlsystem.diagnostics.memory_savings import Saving
from mlsystem.diagnostics.wording import size
from mlsystem.engine import engine

ByDtype = Mapping[str, int]
_KINDS = ("weights", "gradients", "optimizer", "averages")


@dataclass(frozen=True)
class ModelMemory:
    """The bytes of one model, by dtype.

    Attributes:
        weights: its weights, frozen ones included. Empty for an `EMA`.
        gradients: one gradient for each trained weight.
        optimizer: the state of its optimizer.
        averages: the averages of an `EMA`.
    """

    weights: ByDtype
    gradients: ByDtype
    optimizer: ByDtype
    averages: ByDtype

    @property
    def total(self) -> int:
        """The sum of all of these."""
        return sum(sum(getattr(self, kind).values()) for kind in _KINDS)

    def dtypes(self) -> list[str]:
        """Return the dtypes, in the order in which the weights use them."""
        return list(dict.fromkeys(dtype for kind in _KINDS for dtype in getattr(self, kind)))


class Memory(Mapping[str, ModelMemory]):
    """The bytes that training takes: `memory["generator"].optimizer["float32"]`.

    Print it for a table. `MLModel.memory` returns it.

    Attributes:
        total: the bytes of all models: weights, gradients, state of optimizers, averages.
        step: the most bytes that the compiled step needs at once, the batch and what the forward
            pass stores included. None if the backend does not tell before it runs.
        device: the bytes that the accelerator has. None without one.
        savings: what would cut the memory, the largest first. They overlap, and do not add up.
    """

    def __init__(self, learner: Any, batch: Any, step: int | None) -> None:
        self._name, self._models = learner.name, dict(_of_models(learner))
        self.total = sum(model.total for model in self.values())
        self.step, self.device = step, engine.device_memory()
        arrays = [leaf for leaf in tree.flatten(batch) if getattr(leaf, "shape", ())]
        rest = None if step is None else max(step - self.total - sum(map(_bytes, arrays)), 0)
        rows = min((leaf.shape[0] for leaf in arrays), default=1)
        self.savings: list[Saving] = memory_savings.find(learner, self, rest, rows)

    def __getitem__(self, name: str) -> ModelMemory:
        if name not in self._models:
            known = ", ".join(map(repr, self._models))
            raise KeyError(f"'{self._name}' has no model {name!r}. It has {known}.")
        return self._models[name]

    def __iter__(self) -> Iterator[str]:
        return iter(self._models)

    def __len__(self) -> int:
        return len(self._models)

    def __str__(self) -> str:
        rows = [["model", "dtype", *_KINDS, "total"]]
        for name, model in self.items():
            rows += _rows(name, model)
        rows.append(["all", "", *("" for _ in _KINDS), size(self.total)])
        lines = [f"Memory to train '{self._name}'", *table(rows), self._of_step()]
        if self.savings:
            saved = [[s.what, s.model or "all", s.text()] for s in self.savings]
            lines += ["What would cut it:", *table([["change", "model", "saves"], *saved])]
        return "\n".join(lines)

    __repr__ = __str__

    def _of_step(self) -> str:
        have = "" if self.device is None else f" of the {size(self.device)} on this device"
        if self.step is None:
            return f"What the forward pass stores comes on top{have}. The backend does not tell it."
        return (
            f"The compiled step needs {size(self.step)}{have}, with the batch and what the forward "
            "pass stores."
        )


def _rows(name: str, model: ModelMemory) -> Iterator[list[str]]:
    """Yield a row for each dtype of a model, with the total in the first."""
    for i, dtype in enumerate(model.dtypes()):
        counts = [getattr(model, kind).get(dtype, 0) for kind in _KINDS]
        cells = [size(count) if count else "" for count in counts]
        yield ["" if i else name, dtype, *cells, "" if i else size(model.total)]


def _of_models(learner: Any) -> Iterator[tuple[str, ModelMemory]]:
    """Yield the memory of each model. A weight that two models share counts in the first."""
    seen: set[int] = set()
    for name, model in learner.members().items():
        own = [weight for weight in model.weights if id(weight) not in seen]
        seen.update(map(id, own))
        trained = [weight for weight in own if weight.trainable]
        optimizer = learner.optimizers.get(name) if trained else None
        weights, is_copy = by_dtype(own), _learner.is_copy(model)
        yield (
            name,
            ModelMemory(
                weights={} if is_copy else weights,
                gradients=by_dtype(trained),
                optimizer=by_dtype(getattr(optimizer, "variables", [])),
                averages=weights if is_copy else {},
            ),
        )


def by_dtype(variables: Iterable[Any]) -> dict[str, int]:
    """Return the bytes of variables by the dtype in which they are stored."""
    found: dict[str, int] = collections.defaultdict(int)
    for variable in variables:
        found[_keras.stored_dtype(variable)] += variable_bytes(variable)
    return dict(found)


def variable_bytes(variable: Any) -> int:
    """Return the bytes of a variable, as it is stored."""
    bits = re.search(r"\d+", _keras.stored_dtype(variable))  # "bool" has none
    return math.prod(variable.shape) * (int(bits[0]) if bits else 8) // 8


def _bytes(array: Any) -> int:
    return int(getattr(array, "nbytes", 0))

"""Record the calls of a system's models while `forward` runs, and give kept outputs in place."""

import contextlib
import functools
from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from typing import Any

import keras
import numpy as np
from keras import ops, tree

from mlsystem import _keras
from mlsystem._learner import Learner
from mlsystem.diagnostics.dry_run import watched
from mlsystem.routing import members
from mlsystem.step.loss_values import LossValues


@dataclass
class Run:
    """One dry run: the inputs of each call, the named outputs, and the losses, as NumPy arrays."""

    calls: list[tuple[str, list[Any]]] = field(default_factory=list)
    made: list[list[Any]] = field(default_factory=list)
    outputs: Any = None
    taken: LossValues | None = None
    in_forward: int = 0  # so many of the calls are in `forward`, the others in the losses


@contextlib.contextmanager
def recording(
    learner: Learner, run: Run, kept: dict[tuple[str, int], Any], spoiled: str
) -> Iterator[None]:
    """Record the calls of the models, and of layers in them that are called by themselves."""
    with watched(_layers(learner), _Recorder(run, kept, spoiled).recorded):
        yield


def _layers(learner: Learner) -> list[tuple[str, Any]]:
    """Return each layer of each model, with the name of the model."""
    found = learner.members().items()
    return [
        (name, layer)
        for name, member in found
        if not isinstance(member, members.Own)
        for layer in _keras.flat_layers(member)
    ]


class _Recorder:
    """Records the calls of models, and replaces their outputs by kept ones."""

    def __init__(self, run: Run, kept: dict[tuple[str, int], Any], spoiled: str) -> None:
        self.run, self.kept, self.spoiled = run, kept, spoiled
        self.counts: Counter[str] = Counter()
        self.is_inside = False

    def recorded(self, name: str, call: Callable[..., Any]) -> Callable[..., Any]:
        """Return the method `call` of a layer of a model, with its calls recorded."""

        @functools.wraps(call)
        def recorded(*args: Any, **kwargs: Any) -> Any:
            given = None if self.is_inside else numbers((args, kwargs))
            if given is None:  # inside a model, or in a function that is differentiated
                return call(*args, **kwargs)
            self.is_inside = True
            try:
                return self._outputs(name, given, functools.partial(call, *args, **kwargs))
            finally:
                self.is_inside = False

        return recorded

    def _outputs(self, name: str, given: list[Any], call: Callable[[], Any]) -> Any:
        key = name, self.counts[name]
        self.counts[name] += 1
        if key not in self.kept:
            self.kept[key] = call()
        outputs = self.kept[key]
        self.run.calls.append((name, given))
        self.run.made.append(tree.flatten(outputs))
        return tree.map_structure(spoiled_value, outputs) if name == self.spoiled else outputs


def numbers(structure: Any) -> list[Any] | None:
    """Return the arrays in a structure. None if some have no numbers, as in a trace."""
    try:
        leaves = [leaf for leaf in tree.flatten(structure) if hasattr(leaf, "shape")]
        return [np.asarray(ops.convert_to_numpy(leaf)) for leaf in leaves]
    except Exception:
        return None


def spoiled_value(value: Any) -> Any:
    """Return NaN in place of floats, and other whole numbers in place of whole numbers.

    They stay between 0 and the greatest: a class or an index beyond it can stop a GPU.
    """
    dtype = keras.backend.standardize_dtype(value.dtype)
    if "float" in dtype:
        return ops.full_like(value, float("nan"))
    if dtype == "bool":
        return ops.logical_not(value)
    return ops.where(value > 0, value - 1, value + 1)

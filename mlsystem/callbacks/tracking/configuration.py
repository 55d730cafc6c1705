"""`configuration`: the settings of a training run and the versions of packages, as flat names."""

import math
import numbers
import platform
from collections.abc import Iterator, Mapping
from typing import Any

from mlsystem._checks import version_of
from mlsystem._learner import Learner
from mlsystem.engine import engine


def configuration(learner: Learner, fit: Mapping[str, Any]) -> dict[str, Any]:
    """Return the settings by name, as `generator/optimizer/learning_rate`.

    Args:
        learner: the learner of the model that is trained.
        fit: what `fit` got.
    """
    model, found = learner.model, {"model": type(learner.model).__name__, **fit}
    routing = getattr(model, "routing", None)
    found |= {} if routing is None else {"routing": str(routing)}
    found |= dict(_flat("arguments", learner.arguments or {}))
    for name, member in learner.members().items():
        found[f"{name}/weights"] = sum(math.prod(w.shape) for w in member.weights)
    for name, optimizer in learner.optimizers.items():
        found[f"{name}/optimizer"] = type(optimizer).__name__
        found |= dict(_flat(f"{name}/optimizer", optimizer.get_config()))
    return found | {f"versions/{name}": version for name, version in versions().items()}


def versions() -> dict[str, str]:
    """Return the versions of Python, this library, Keras, NumPy and the backend."""
    found = {p: version_of(p) for p in ("mlsystem", "keras", "numpy", engine.name)}
    known = {package: version for package, version in found.items() if version}
    return {"python": platform.python_version(), **known}


def _flat(front: str, values: Mapping[str, Any]) -> Iterator[tuple[str, Any]]:
    """Yield the numbers and strings in nested dicts."""
    for name, value in values.items():
        if isinstance(value, Mapping):
            yield from _flat(f"{front}/{name}", value)
        elif isinstance(value, (str, int)):
            yield f"{front}/{name}", value
        elif isinstance(value, numbers.Real):  # also a number of NumPy
            yield f"{front}/{name}", float(value)

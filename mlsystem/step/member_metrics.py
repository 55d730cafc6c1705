"""The metrics of the members of a system."""

from typing import Any

from mlsystem import _keras, _learner
from mlsystem._learner import SystemBase
from mlsystem._tensors import describe
from mlsystem.data.batch import own_entry
from mlsystem.routing import members


def metrics_of(learner: SystemBase) -> dict[str, Any]:
    """Return by path the metrics of each member that has metrics, its own or from `compile`."""
    direct = members.direct(learner.model).items()
    learners = [(n, m) for n, m in direct if _learner.of(m) and not _learner.is_copy(m)]
    own = [(name, _keras.compile_metrics(member)) for name, member in learners]
    found = {name: metrics for name, metrics in own if metrics is not None}
    found |= learner.wiring.metrics if learner.wiring else {}
    for name, inner in learner.nested.items():
        found.pop(name, None)
        found |= {f"{name}/{n}": metrics for n, metrics in inner._mlsystem.metrics.items()}
    return found


def measure(name: str, metrics: Any, y: Any, outputs: Any, sample_weight: Any) -> None:
    """Update the metrics of one member."""
    try:
        metrics.update_state(y, outputs, sample_weight)
    except Exception as error:
        raise ValueError(
            f"The metrics of '{name}' cannot compare y, {describe(y)}, with its outputs, "
            f"{describe(outputs)}. Of dicts, they take the entry '{name}'. "
            f"{type(error).__name__}: {error}"
        ) from error


def entry(system: Any, structure: Any, path: str) -> Any:
    """Return a member's own entry of `y` or of the outputs, through the systems around it."""
    for name, inner in members.nested(system).items():
        if path.startswith(f"{name}/"):
            return entry(inner, own_entry(structure, name), path.removeprefix(f"{name}/"))
    return own_entry(structure, path)

"""The metrics of the members of a system."""

from typing import Any

from mlsystem import _keras, _learner
from mlsystem._tensors import describe
from mlsystem.data.batch import own_entry
from mlsystem.routing import members


def metrics_of(system: Any) -> dict[str, Any]:
    """Return by path the metrics of each member that has metrics, its own or from `compile`."""
    own = {n: _keras.compile_metrics(m) for n, m in members.direct(system).items() if _learns(m)}
    found = {n: metrics for n, metrics in own.items() if metrics is not None}
    if (wiring := system._mlsystem.wiring) is not None:
        found |= wiring.metrics
    for name, inner in members.nested(system).items():
        found.pop(name, None)
        found |= {f"{name}/{n}": metrics for n, metrics in metrics_of(inner).items()}
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


def _learns(member: Any) -> bool:
    return _learner.of(member) is not None and not _learner.is_copy(member)

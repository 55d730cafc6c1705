"""What a system is given to learn by: an optimizer for each model, losses and metrics by name."""

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import keras

from mlsystem import _keras, data, members, optimizers, routing, schedule
from mlsystem.collect import has_own_loss


def configure(system: Any) -> None:
    """Reads the configuration of a system whose weights are built; names that do not exist fail."""
    system._run.members = members.leaves(system)
    _build_optimizers(system)
    names = list(system._models())
    system._run.phases = schedule.read_phases(system.phases, names)
    system._run.every = schedule.read_every(system.update_every, names)
    if system._run.every and system.steps_per_execution > 1:
        raise ValueError(
            f"'{system.name}' has update_every={system.update_every!r}, by which batches take "
            f"different steps, and steps_per_execution={system.steps_per_execution}, which runs "
            "several as one. Leave the latter at 1."
        )
    _read_given(system)


def _read_given(system: Any) -> None:
    """Reads the losses and metrics given to `compile`, also to that of a nested system."""
    system._run.direct = members.direct(system)
    system._run.losses = _losses(system)
    system._run.metrics = _metrics(system)
    for inner in members.nested(system).values():
        _read_given(inner)


def own_optimizers(system: Any) -> dict[str, Any]:
    """The optimizer that each model comes with, those of a nested system from its own methods."""
    found: dict[str, Any] = {}
    inside = members.nested(system)
    for name, inner in inside.items():
        chosen = _chosen(inner, list(members.trained(inner)))
        found |= {f"{name}/{leaf}": optimizer for leaf, optimizer in chosen.items()}
    for name, model in members.trained(system).items():
        if name not in found:
            found[name] = _own_optimizer(model)
    return found


def _own_optimizer(model: Any) -> Any:
    if hasattr(model, "configure_optimizer"):
        return model.configure_optimizer()
    return keras.optimizers.Adam()


def _build_optimizers(system: Any) -> None:
    models = system._models()
    if set(system.optimizers) == set(models) and models:
        return  # what changed since is another matter
    chosen = optimizers.distinct(_chosen(system, list(models)))
    if system._run.given.get("auto_scale_loss", True):
        chosen = {n: optimizers.with_loss_scaling(o, models[n]) for n, o in chosen.items()}
    for name, optimizer in chosen.items():
        if not optimizer.built:
            optimizer.build(models[name].trainable_weights)
        optimizers.check_built(name, optimizer, models[name].trainable_weights)
    with _keras.DotNotTrackScope():
        system.optimizer = optimizers.SystemOptimizer(chosen) if chosen else None
    for name in chosen:
        log = optimizers.rate_log(name)
        system._run.logs.claim(log, f"the learning rate of '{name}'")


def _chosen(system: Any, names: Sequence[str]) -> dict[str, Any]:
    """The optimizer of each model: that given to `compile`, else that of `configure_optimizers`."""
    given = system._run.given.get("optimizer")
    chosen = optimizers.one_each(given, names) if given is not None else {}
    if all(name in chosen for name in names):
        return chosen
    configured = routing.by_name(system.configure_optimizers(), names, "configure_optimizers")
    chosen = optimizers.make_each(configured) | chosen
    if missing := [name for name in names if chosen.get(name) is None]:
        raise ValueError(
            f"configure_optimizers returns no optimizer for {', '.join(map(repr, missing))}. "
            f"It returns some for {list(chosen)}."
        )
    return {name: chosen[name] for name in names}


def _losses(system: Any) -> dict[str, Any]:
    """The losses given to `compile`, by member."""
    direct = members.direct(system)

    def lacks(name: str) -> bool:
        return bool(direct[name].trainable_weights) and not has_own_loss(direct[name])

    given = _by_member(system._run.given.get("loss"), list(direct), "loss", lacks)
    return {name: _keras.CompileLoss(loss) for name, loss in given.items()}


def _metrics(system: Any) -> dict[str, Any]:
    """The metrics given to `compile`, by member."""
    direct = members.direct(system)

    def supervised(name: str) -> bool:
        return name in system._run.losses or _keras.compile_loss(direct[name]) is not None

    plain, weighted = (
        _by_member(system._run.given.get(what), list(direct), what, supervised)
        for what in ("metrics", "weighted_metrics")
    )
    return {
        name: _keras.CompileMetrics(plain.get(name), weighted.get(name))
        for name in plain | weighted
    }


def _by_member(
    given: Any, names: Sequence[str], what: str, takes: Callable[[str], bool]
) -> dict[str, Any]:
    """A dict by name spelled out; any other value is for each of the members that take one."""
    if isinstance(given, Mapping):
        return routing.by_name(given, names, what)
    return {name: given for name in names if given is not None and takes(name)}


def metrics_of(system: Any) -> dict[str, Any]:
    """The metrics of each member that has any, its own or given to `compile`, by path."""
    own = {n: _keras.compile_metrics(m) for n, m in members.direct(system).items() if _learns(m)}
    found = {n: metrics for n, metrics in own.items() if metrics is not None} | system._run.metrics
    for name, inner in members.nested(system).items():
        found.pop(name, None)
        found |= {f"{name}/{n}": metrics for n, metrics in metrics_of(inner).items()}
    return found


def measure(name: str, metrics: Any, y: Any, outputs: Any, sample_weight: Any) -> None:
    """Updates the metrics of one member."""
    try:
        metrics.update_state(y, outputs, sample_weight)
    except Exception as error:
        raise ValueError(
            f"The metrics of '{name}' cannot compare y, {data.describe(y)}, with its outputs, "
            f"{data.describe(outputs)}. Of dicts, they take the entry '{name}'. "
            f"{type(error).__name__}: {error}"
        ) from error


def entry(system: Any, structure: Any, path: str) -> Any:
    """A member's own entry of `y` or of the outputs, through those of the systems it is in."""
    for name, inner in members.nested(system).items():
        if path.startswith(f"{name}/"):
            return entry(inner, data.own(structure, name), path.removeprefix(f"{name}/"))
    return data.own(structure, path)


def _learns(member: Any) -> bool:
    return hasattr(member, "key") and not hasattr(member, "follow")

"""What a system is given to learn by: an optimizer for each model, losses and metrics by name."""

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import keras

from mlsystem import _keras
from mlsystem._attributes import TURNS
from mlsystem._tensors import describe
from mlsystem.data.batch import own_entry
from mlsystem.losses import system_losses
from mlsystem.optimizers import system_optimizer
from mlsystem.routing import members, routing_table, update_schedule

NONFINITE = ("skip", "raise", "keep")


def configure(system: Any) -> None:
    """Reads the configuration of a system whose weights are built; names that do not exist fail."""
    system._run.members = members.leaves(system)
    names = system._known_models()
    leaves = system._run.members
    system._run.flagged = [weight for name in names for weight in leaves[name].weights]
    if system.nonfinite not in NONFINITE:
        raise ValueError(f"nonfinite is {system.nonfinite!r}; give one of {', '.join(NONFINITE)}.")
    if system.nonfinite != "keep":
        system._run.logs.count_skips(names)
    system._run.phases = update_schedule.read_phases(system.phases, names)
    system._run.when = update_schedule.read_conditions(system.update_when, names)
    system._run.turns = update_schedule.read_turns(
        system.update_every, system.update_start, system.update_end, names
    )
    system._run.logs.sealed = False  # until the next rehearsal
    for model in system._run.when:
        system._run.logs.make(f"{model}_updated", f"the share of updates of '{model}'")
    _check_executions(system)
    retrain(system)
    _read_given(system)


def _check_executions(system: Any) -> None:
    if system._run.turns and system.steps_per_execution > 1:
        given = [name for name in TURNS if getattr(system, name)]
        raise ValueError(
            f"'{system.name}' has {' and '.join(given)}, by which batches take different steps, "
            f"and steps_per_execution={system.steps_per_execution}, which runs several as one. "
            "Leave the latter at 1."
        )


def retrain(system: Any) -> None:
    """Sees to what depends on which models are frozen; called again where that has changed."""
    _build_optimizers(system)
    for name, leaf in system._run.members.items():
        if hasattr(leaf, "key"):
            leaf._run.optimizer = system.optimizers.get(name)
    update_schedule.check_phases(system._run.phases, list(system._models()))
    if system._run.loss_names:  # once they are known
        system_losses.rows(system, system._run.loss_names)
    system._run.flags = flags(system)


def flags(system: Any) -> tuple[bool, ...]:
    """Whether each weight is trained at present."""
    return tuple([weight.trainable for weight in system._run.flagged])


def _read_given(system: Any) -> None:
    """Reads the losses and metrics given to `compile`, also to that of a nested system."""
    system._run.direct = members.direct(system)
    system._run.nested = members.nested(system)
    system._run.losses = _losses(system)
    system._run.metrics = _metrics(system)
    for inner in system._run.nested.values():
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
    """Gives an optimizer to each model that is trained; one frozen meanwhile keeps its own."""
    leaves, before = system._run.members, dict(system.optimizers)
    weights = {name: _optimized(system, name) for name in leaves}
    chosen = {name: optimizer for name, optimizer in before.items() if name in leaves}
    new = [name for name, mine in weights.items() if mine and name not in chosen]
    chosen = system_optimizer.distinct(chosen | (_chosen(system, new) if new else {}))
    if system._run.given.get("auto_scale_loss", True):
        chosen |= {n: system_optimizer.with_loss_scaling(chosen[n], leaves[n]) for n in new}
    for name, optimizer in chosen.items():
        chosen[name] = _built(name, optimizer, weights[name], name in new)
    if chosen != before or system.optimizer is None:  # Keras' jax trainer asks for one
        _set_optimizers(system, {name: chosen[name] for name in leaves if name in chosen})


def optimized(system: Any) -> dict[str, list[int]]:
    """The weights, by number, of each optimizer that is for others than are trained at present."""
    found: dict[str, list[int]] = {}
    for name, optimizer in system.optimizers.items():
        leaf, weights = members.leaves(system)[name], _keras.optimized_weights(optimizer)
        if [id(weight) for weight in weights] != [id(weight) for weight in leaf.trainable_weights]:
            numbers = {id(weight): i for i, weight in enumerate(leaf.weights)}
            found[name] = [numbers[id(weight)] for weight in weights]
    return found


def _optimized(system: Any, name: str) -> list[Any]:
    """The weights of a model that its optimizer is for: of a loaded one as when it was saved."""
    leaf = system._run.members[name]
    saved = [leaf.weights[i] for i in system._run.optimized.get(name, ())]
    known = {id(weight) for weight in saved}
    return saved + [weight for weight in leaf.trainable_weights if id(weight) not in known]


def _built(name: str, optimizer: Any, weights: list[Any], is_new: bool) -> Any:
    if not optimizer.built:
        optimizer.build(weights)
    if is_new or system_optimizer.knows(optimizer, weights):
        system_optimizer.check_built(name, optimizer, weights)
        return optimizer
    return system_optimizer.extended(optimizer, weights)


def _set_optimizers(system: Any, chosen: dict[str, Any]) -> None:
    if system.optimizer is not None:
        system.optimizer.take(chosen)
        system.test_function = None  # it holds the state of those before
    else:
        with _keras.DotNotTrackScope():
            system.optimizer = system_optimizer.SystemOptimizer(chosen)
    for name in chosen:
        log = system_optimizer.rate_log(name)
        system._run.logs.claim(log, f"the learning rate of '{name}'")


def _chosen(system: Any, names: Sequence[str]) -> dict[str, Any]:
    """The optimizer of each model: that given to `compile`, else that of `configure_optimizers`."""
    given, known = system._run.given.get("optimizer"), system._known_models()
    chosen: dict[str, Any] = {}
    if given is not None:
        chosen = system_optimizer.one_each(
            given, known if system_optimizer.is_by_model(given) else names
        )
    if all(name in chosen for name in names):
        return {name: chosen[name] for name in names}
    configured = system.configure_optimizers()
    if not isinstance(configured, Mapping):
        raise ValueError(
            f"{type(system).__name__}.configure_optimizers returned a {type(configured).__name__}. "
            f"Return a dict {{model: optimizer}} of the models {', '.join(map(repr, known))}. "
            "Schedules belong to the optimizers, as their learning_rate."
        )
    configured = routing_table.by_name(configured, known, "configure_optimizers")
    chosen = system_optimizer.make_each(configured) | chosen
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
        return bool(direct[name].trainable_weights) and not system_losses.has_own_loss(direct[name])

    asked = system._run.given.get("loss")
    learn = [member for member in direct.values() if not hasattr(member, "follow")]
    one = asked is not None and not isinstance(asked, Mapping)
    if one and learn and all(map(system_losses.has_own_loss, learn)):
        raise ValueError(
            f"compile got loss={asked!r}, and each model of '{system.name}' has a loss of its own. "
            "Leave one of them out."
        )
    given = _by_member(asked, list(direct), "loss", lacks)
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
        return routing_table.by_name(given, names, what)
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
            f"The metrics of '{name}' cannot compare y, {describe(y)}, with its outputs, "
            f"{describe(outputs)}. Of dicts, they take the entry '{name}'. "
            f"{type(error).__name__}: {error}"
        ) from error


def entry(system: Any, structure: Any, path: str) -> Any:
    """A member's own entry of `y` or of the outputs, through those of the systems it is in."""
    for name, inner in members.nested(system).items():
        if path.startswith(f"{name}/"):
            return entry(inner, own_entry(structure, name), path.removeprefix(f"{name}/"))
    return own_entry(structure, path)


def _learns(member: Any) -> bool:
    return hasattr(member, "key") and not hasattr(member, "follow")

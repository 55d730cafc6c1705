"""What a system is given to learn by: an optimizer for each model, losses and metrics by name."""

from collections.abc import Callable, Mapping, Sequence
from typing import Any

from mlsystem import _keras
from mlsystem._attributes import TURNS
from mlsystem.losses import system_losses
from mlsystem.preparation.member_optimizers import _build_optimizers
from mlsystem.routing import members, model_names, system_rows, update_schedule

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
        system_rows.rows(system, system._run.loss_names)
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
        return model_names.by_name(given, names, what)
    return {name: given for name in names if given is not None and takes(name)}

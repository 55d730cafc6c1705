"""Read the phases, schedule, losses and metrics of a system, again when a model is frozen."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from typing import Any

import keras

from mlsystem import _keras, _learner
from mlsystem._attribute_names import TURNS
from mlsystem._learner import Setup, SystemBase, Wiring
from mlsystem.preparation import member_optimizers
from mlsystem.routing import members, model_names, system_routing, update_schedule
from mlsystem.step.system_losses import has_own_loss
from mlsystem.step.train_function import trained

NONFINITE = ("skip", "raise", "keep")


def configure(learner: SystemBase) -> None:
    """Read the configuration of a built system. Raise an error if it names an unknown model."""
    system, leaves = learner.model, members.leaves(learner.model)
    names = [name for name, leaf in leaves.items() if not _learner.is_copy(leaf)]
    if system.nonfinite not in NONFINITE:
        raise ValueError(f"nonfinite is {system.nonfinite!r}; give one of {', '.join(NONFINITE)}.")
    setup = Setup(
        weights=[weight for name in names for weight in leaves[name].weights],
        members=leaves,
        phases=update_schedule.read_phases(system.phases, names),
        turns=update_schedule.read_turns(
            system.update_every, system.update_start, system.update_end, names
        ),
        conditions=update_schedule.read_conditions(system.update_when, names),
    )
    _check_executions(system, setup)
    learner.setup = setup
    _name_logs(learner, names)
    retrain(learner)
    _wire(learner)


def _check_executions(system: Any, setup: Setup) -> None:
    if setup.turns and system.steps_per_execution > 1:
        given = [name for name in TURNS if getattr(system, name)]
        raise ValueError(
            f"'{system.name}' has {' and '.join(given)}, so that its steps differ, and "
            f"steps_per_execution={system.steps_per_execution}. Only equal steps can run as one "
            "execution of fixed length. Compile with steps_per_execution='auto'."
        )


def _name_logs(learner: SystemBase, names: Sequence[str]) -> None:
    """Reserve the names of the logs that do not depend on losses."""
    learner.logs.sealed = False  # until the next rehearsal
    if learner.model.nonfinite != "keep":
        learner.logs.count_skips(names)
    for model in learner.setup.conditions if learner.setup else ():
        learner.logs.make(f"{model}_updated", f"the share of updates of '{model}'")


def retrain(learner: SystemBase) -> None:
    """Update the state that depends on frozen models. Call it again when these change."""
    assert learner.setup is not None
    member_optimizers.build(learner)
    for name, model in {**learner.members(), **members.nested(learner.model)}.items():
        if isinstance(model, keras.Layer) and (member := _learner.of(model)) is not None:
            optimizer = learner.optimizers.get(name)
            member_optimizers.check_own(learner, name, member.role.own, optimizer)
            member.role = replace(member.role, optimizer=optimizer, own=None)
    update_schedule.check_phases(learner.setup.phases, list(learner.models()))
    if learner.known.names:
        system_routing.rows(learner, learner.known.names)
    learner.compiled.trained = trained(learner.setup.weights)


def _wire(learner: SystemBase) -> None:
    """Read the losses and metrics given to `compile`, also for nested systems."""
    direct, nested = members.direct(learner.model), members.nested(learner.model)
    losses = _losses(learner, direct)
    learner.wiring = Wiring(direct, losses, _metrics(learner, direct, losses))
    learner.is_current = True
    learner.forget()
    for inner in nested.values():
        _wire(inner._mlsystem)


def _losses(learner: SystemBase, direct: dict[str, Any]) -> dict[str, Any]:
    """Return the losses given to `compile`, by member."""

    def lacks(name: str) -> bool:
        return bool(direct[name].trainable_weights) and not has_own_loss(direct[name])

    asked = learner.given.loss
    learn = [member for member in direct.values() if not _learner.is_copy(member)]
    one = asked is not None and not isinstance(asked, Mapping)
    if one and learn and all(map(has_own_loss, learn)):
        raise ValueError(
            f"compile got loss={asked!r}, and each model of '{learner.name}' has a loss of its "
            "own. Leave one of them out."
        )
    given = _by_member(asked, list(direct), "loss", lacks)
    return {name: _keras.CompileLoss(loss) for name, loss in given.items()}


def _metrics(learner: SystemBase, direct: dict[str, Any], losses: dict[str, Any]) -> dict[str, Any]:
    """Return the metrics given to `compile`, by member."""

    def supervised(name: str) -> bool:
        return name in losses or _keras.compile_loss(direct[name]) is not None

    given = learner.given
    asked = {"metrics": given.metrics, "weighted_metrics": given.weighted_metrics}
    plain, weighted = (
        _by_member(value, list(direct), what, supervised) for what, value in asked.items()
    )
    return {
        name: _keras.CompileMetrics(plain.get(name), weighted.get(name))
        for name in plain | weighted
    }


def _by_member(
    given: Any, names: Sequence[str], what: str, takes: Callable[[str], bool]
) -> dict[str, Any]:
    """Return a value for each member: a dict expanded, or one value for each member it suits."""
    if isinstance(given, Mapping):
        return model_names.by_name(given, names, what)
    return {name: given for name in names if given is not None and takes(name)}

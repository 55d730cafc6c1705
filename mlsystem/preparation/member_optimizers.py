"""Choose and build the optimizer of each member. A frozen member keeps the one it has."""

import warnings
from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

import keras

from mlsystem import _keras, _learner
from mlsystem._learner import SystemBase
from mlsystem.optimizers import creation, system_optimizer
from mlsystem.routing import members, model_names


def own_optimizers(system: Any) -> dict[str, Any]:
    """Return each model's own optimizer. A nested system chooses the optimizers of its models."""
    found: dict[str, Any] = {}
    inside = members.nested(system)
    for name, inner in inside.items():
        inner._mlsystem.role = replace(inner._mlsystem.role, own=None)  # it is used
        chosen = _chosen(inner._mlsystem, list(members.trained(inner)))
        found |= {f"{name}/{leaf}": optimizer for leaf, optimizer in chosen.items()}
    for name, model in members.trained(system).items():
        if name not in found:
            found[name] = _own_optimizer(model)
    return found


def _own_optimizer(model: Any) -> Any:
    has_own = hasattr(model, "configure_optimizer")
    return model.configure_optimizer() if has_own else keras.optimizers.Adam()


def build(learner: SystemBase) -> None:
    """Give an optimizer to each trained model. A model frozen meanwhile keeps its optimizer."""
    leaves, before = learner.members(), dict(learner.optimizers)
    weights = {name: _optimized(learner, name, leaf) for name, leaf in leaves.items()}
    chosen = {name: optimizer for name, optimizer in before.items() if name in leaves}
    new = [name for name, mine in weights.items() if mine and name not in chosen]
    chosen = creation.distinct(chosen | (_chosen(learner, new) if new else {}))
    for name in new:
        if (own := _learner.of(leaves[name])) is not None:
            own.check_optimizer(chosen[name])
    if learner.given.auto_scale_loss:
        chosen |= {n: creation.with_loss_scaling(chosen[n], leaves[n]) for n in new}
    for name, optimizer in chosen.items():
        chosen[name] = _built(name, optimizer, weights[name], name in new)
    if chosen != before or learner.model.optimizer is None:  # Keras' jax trainer needs an optimizer
        _set_optimizers(learner, {name: chosen[name] for name in leaves if name in chosen})


def check_own(learner: SystemBase, name: str, own: Any, used: Any) -> None:
    """Warn if the user gave a model another optimizer than the one that the system uses."""
    if own is None or (used is not None and _same(own, used)):
        return
    warnings.warn(
        f"'{name}' was given an optimizer of its own, by `compile` or as its `optimizer`. "
        f"'{learner.name}' does not use it. Give it to the system: "
        f"`compile(optimizer={{'{name}': ...}})`.",
        stacklevel=2,
    )


def _same(own: Any, used: Any) -> bool:
    one, other = (o.get_config() | {"name": ""} for o in (own, used))
    return type(own) is type(used) and one == other


def optimized(system: Any) -> dict[str, list[int]]:
    """Return the weights, by index, of optimizers built for other weights than are now trained."""
    found: dict[str, list[int]] = {}
    for name, optimizer in system.optimizers.items():
        leaf, weights = members.leaves(system)[name], _keras.optimized_weights(optimizer)
        if [id(weight) for weight in weights] != [id(weight) for weight in leaf.trainable_weights]:
            numbers = {id(weight): i for i, weight in enumerate(leaf.weights)}
            found[name] = [numbers[id(weight)] for weight in weights]
    return found


def _optimized(learner: SystemBase, name: str, leaf: Any) -> list[Any]:
    """Return the weights for a model's optimizer. A loaded model first lists its saved weights."""
    saved = [leaf.weights[i] for i in learner.given.optimized.get(name, ())]
    known = {id(weight) for weight in saved}
    return saved + [weight for weight in leaf.trainable_weights if id(weight) not in known]


def _built(name: str, optimizer: Any, weights: list[Any], is_new: bool) -> Any:
    if not optimizer.built:
        optimizer.build(weights)
    if is_new or creation.knows(optimizer, weights):
        creation.check_built(name, optimizer, weights)
        return optimizer
    return creation.extended(optimizer, weights)


def _set_optimizers(learner: SystemBase, chosen: dict[str, Any]) -> None:
    system = learner.model
    if system.optimizer is not None:
        system.optimizer.take(chosen)
        system.test_function = None  # it holds the state of the earlier optimizers
    else:
        with _keras.DotNotTrackScope():
            system.optimizer = system_optimizer.SystemOptimizer(chosen)
    for name in chosen:
        log = system_optimizer.rate_log(name)
        learner.logs.claim(log, f"the learning rate of '{name}'")


def _chosen(learner: SystemBase, names: Sequence[str]) -> dict[str, Any]:
    """Return each model's optimizer: from `compile`, else from `configure_optimizers`."""
    given, known, system = learner.given.optimizer, learner.known_models(), learner.model
    chosen: dict[str, Any] = {}
    if given is not None:
        chosen = creation.one_each(given, known if creation.is_by_model(given) else names)
    if all(name in chosen for name in names):
        return {name: chosen[name] for name in names}
    configured = system.configure_optimizers()
    if not isinstance(configured, Mapping):
        raise ValueError(
            f"{type(system).__name__}.configure_optimizers returned a {type(configured).__name__}. "
            f"Return a dict {{model: optimizer}} of the models {', '.join(map(repr, known))}. "
            "Schedules belong to the optimizers, as their learning_rate."
        )
    configured = model_names.by_name(configured, known, "configure_optimizers")
    chosen = creation.make_each(configured) | chosen
    if missing := [name for name in names if chosen.get(name) is None]:
        raise ValueError(
            f"configure_optimizers returns no optimizer for {', '.join(map(repr, missing))}. "
            f"It returns some for {list(chosen)}."
        )
    return {name: chosen[name] for name in names}

"""Save and load `routing`, `phases` and the like, and which members are frozen."""

from collections.abc import Mapping
from dataclasses import replace
from typing import Any

import keras

from mlsystem._attribute_names import SAVED
from mlsystem.preparation import member_optimizers
from mlsystem.routing import members
from mlsystem.saving import constructor_arguments


def declared(system: Any) -> dict[str, Any]:
    """Return the declarations set on the system, such as `routing`, and the frozen members.

    Declarations with variables are left out, because constructors create these variables.
    """
    own = {name: vars(system)[name] for name in SAVED if name in vars(system)}
    plain = {name: value for name, value in own.items() if not _holds_variables(value)}
    leaves = members.leaves(system).items()
    frozen = [name for name, leaf in leaves if not getattr(leaf, "trainable", True)]
    optimized = member_optimizers.optimized(system)
    plain |= {n: v for n, v in (("frozen", frozen), ("optimized", optimized)) if v}
    return {n: constructor_arguments.serialized(system, n, v) for n, v in plain.items()}


def declare(system: Any, config: Mapping[str, Any]) -> dict[str, Any]:
    """Set the declarations that `declared` returned. Return the rest of the config."""
    for name in SAVED:
        if name in config:
            setattr(system, name, keras.saving.deserialize_keras_object(config[name]))
    leaves, learner = members.leaves(system), system._mlsystem
    for name in config.get("frozen", ()):
        leaves[name].trainable = False
    learner.given = replace(learner.given, optimized=dict(config.get("optimized", {})))
    known = (*SAVED, "frozen", "optimized")
    return {name: value for name, value in config.items() if name not in known}


def _holds_variables(value: Any) -> bool:
    return any(isinstance(leaf, keras.Variable) for leaf in keras.tree.flatten(value))

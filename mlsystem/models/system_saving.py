"""`SystemSaving`: the configuration of a system in files.

It holds the arguments of `compile`, declarations such as `routing`, and which members are frozen.
"""

from collections.abc import Mapping
from dataclasses import replace
from typing import Any

import keras

from mlsystem import _keras
from mlsystem._attribute_names import SAVED
from mlsystem.models.system_learner import SystemLearner
from mlsystem.preparation import member_optimizers
from mlsystem.routing import members
from mlsystem.saving import constructor_arguments

# The arguments of a system's `compile`, beside the arguments of Keras.
_COMPILED = ("optimizer", "loss", "loss_weights", "metrics", "weighted_metrics", "auto_scale_loss")


class SystemSaving(_keras.Hooks):
    """The configuration of a system in files. `MLSystem` subclasses it. Users do not."""

    _mlsystem: SystemLearner

    def get_compile_config(self) -> Any:
        """Return the training configuration, as Keras saves it, with each model's optimizer."""
        if not (config := super().get_compile_config()):
            return config
        given = {name: getattr(self._mlsystem.given, name) for name in _COMPILED}
        given |= {"optimizer": dict(self.optimizers)} if self.optimizers else {}
        config |= {
            name: constructor_arguments.serialized(self, name, v) for name, v in given.items()
        }
        return config | _declared(self)

    def compile_from_config(self, config: dict[str, Any]) -> None:
        """Compile a loaded system like the saved one. Called by Keras."""
        super().compile_from_config(_declare(self, config))

    def get_build_config(self) -> Any:
        """Return the build config. Add the declarations of a system that is not compiled."""
        config = super().get_build_config()
        return config if self.compiled or not config else config | _declared(self)

    def build_from_config(self, config: dict[str, Any]) -> None:
        """Create the weights of a loaded system. Called by Keras."""
        super().build_from_config(_declare(self, config))


def _declared(system: Any) -> dict[str, Any]:
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


def _declare(system: Any, config: Mapping[str, Any]) -> dict[str, Any]:
    """Set the declarations that `_declared` returned. Return the rest of the config."""
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

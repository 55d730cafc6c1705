"""The optimizers of a system, shown to Keras as one; and their learning rates, for the logs."""

from collections.abc import Mapping, Sequence
from types import MappingProxyType
from typing import Any

import keras
import numpy as np
from keras import ops

from mlsystem import _keras


class ByModel(dict[str, Any]):
    """Optimizers by model. A name without one raises an error that lists the names."""

    def __missing__(self, name: str) -> Any:
        """Raise the error."""
        known = f"There are those of {', '.join(map(repr, self))}." if self else "Call setup first."
        raise KeyError(f"There is no optimizer of {name!r}. {known}")


@keras.saving.register_keras_serializable("mlsystem")
class SystemOptimizer(keras.optimizers.Optimizer):
    """The optimizers of a system, as Keras' trainer and callbacks see them.

    `iterations` counts the batches. Each model's optimizer counts its own updates.
    `learning_rate` returns the rate of the first model. Setting it scales the rates of all models.
    A bound of a callback, such as `min_lr`, applies to the rate of the first model.

    Args:
        optimizers: the optimizer of each model, a dict.

    Attributes:
        by_model: the optimizer of each model. Keras uses the name `optimizers` differently.

    >>> inner = {"a": keras.optimizers.SGD(0.1), "b": keras.optimizers.SGD(0.2)}
    >>> optimizer = SystemOptimizer(inner)
    >>> optimizer.learning_rate = 0.01
    >>> round(float(inner["b"].learning_rate), 6)
    0.02
    """

    def __init__(self, optimizers: Mapping[str, Any], name: str = "system_optimizer") -> None:
        super().__init__(learning_rate=0.0, name=name)
        # No dict or list: Keras would search it for more objects to save.
        self.by_model: Mapping[str, Any] = MappingProxyType(ByModel(optimizers))
        self._ratios = [1.0] * len(optimizers)
        self.built = True

    @property
    def variables(self) -> list[Any]:
        """The batch counter, then the variables of each optimizer."""
        return [self.iterations, *(v for inner in self.by_model.values() for v in inner.variables)]

    @property
    def learning_rate(self) -> Any:
        """The learning rate of the first model. Setting it scales all rates by the same factor.

        Set it to a number. If the rate of a model follows a schedule, setting it raises a
        TypeError, as in Keras, and changes no rate.
        """
        return self.by_model[self._first()].learning_rate

    @learning_rate.setter
    def learning_rate(self, value: Any) -> None:
        if not hasattr(self, "by_model"):
            return  # Keras' own constructor sets the rate before the optimizers exist
        self._check_settable(value)
        rates = [float(inner.learning_rate) for inner in self.by_model.values()]
        if rates[0]:  # at a rate of 0, as in a warm-up, the earlier proportions are kept
            self._ratios = [rate / rates[0] for rate in rates]
        for inner, ratio in zip(self.by_model.values(), self._ratios, strict=True):
            inner.learning_rate = value * ratio

    def _first(self) -> str:
        if not self.by_model:
            raise AttributeError("The system trains no model, and so has no learning rate.")
        return next(iter(self.by_model))

    def _check_settable(self, value: Any) -> None:
        first = self._first()
        alone = (
            f"`system.optimizers['{first}'].learning_rate` or `ml.callbacks.For('{first}', ...)`"
        )
        if callable(value):
            raise TypeError(
                f"The learning rates of a system were set to {type(value).__name__}, and scale to "
                f"a number only. Set that of each model, as in {alone}."
            )
        for name, inner in self.by_model.items():
            rate = getattr(inner, "learning_rate", None)
            if not isinstance(rate, keras.Variable):
                why = "has several" if rate is None else "follows a schedule"
                raise TypeError(
                    f"The learning rate of '{name}' cannot be set: its {type(inner).__name__} "
                    f"{why}. Set those of other models one by one, as in {alone}."
                )

    def take(self, optimizers: Mapping[str, Any]) -> None:
        """Replace the optimizers, for example when a model is unfrozen."""
        ratios = dict(zip(self.by_model, self._ratios, strict=True))
        self.by_model = MappingProxyType(ByModel(optimizers))
        self._ratios = [ratios.get(name, 1.0) for name in optimizers]

    def count_batch(self) -> None:
        """Add one batch to `iterations`."""
        self.iterations.assign_add(1)

    def build(self, variables: Sequence[Any]) -> None:
        """Do nothing: each optimizer is built on its model's weights."""

    def apply(self, grads: Any, trainable_variables: Any = None) -> None:
        """Raise an error: the optimizers are applied one by one."""
        raise NotImplementedError(
            "A system's optimizers are applied per model: call `system.apply_gradients`."
        )

    def finalize_variable_values(self, var_list: Sequence[Any]) -> None:
        """Let each optimizer with `use_ema` overwrite its weights with their averages."""
        for inner in self.by_model.values():
            inner.finalize_variable_values(_keras.optimized_weights(inner))

    def _state(self) -> dict[str, Any]:
        """Return the variables by their names in a file, such as `generator.Adam.0`."""
        return {"iterations": self.iterations} | {
            f"{_key(name, inner)}.{i}": variable
            for name, inner in self.by_model.items()
            for i, variable in enumerate(inner.variables)
        }

    def _ratio_keys(self) -> list[str]:
        return [f"{_key(name, inner)}.ratio" for name, inner in self.by_model.items()]

    def save_own_variables(self, store: Any) -> None:
        """Save the state into one group of a file. Called by Keras."""
        for key, ratio in zip(self._ratio_keys(), self._ratios, strict=True):
            store[key] = np.array(ratio)
        for key, variable in self._state().items():
            store[key] = variable

    def load_own_variables(self, store: Any) -> None:
        """Load the state from one group of a file, if all of it is there. Called by Keras."""
        state, ratios = self._state(), self._ratio_keys()
        if differ := sorted({*ratios, *state} ^ set(store.keys())):
            raise ValueError(
                f"The file does not hold the state of the optimizers of {list(self.by_model)}. In "
                f"only one of the file and the system: {', '.join(differ)}."
            )
        self._ratios = [float(store[key]) for key in ratios]
        for key, variable in state.items():
            variable.assign(store[key])

    def get_config(self) -> dict[str, Any]:
        """Return the configuration, as Keras saves it."""
        optimizers = {n: keras.saving.serialize_keras_object(o) for n, o in self.by_model.items()}
        return {"optimizers": optimizers, "name": self.name}

    @classmethod
    def from_config(cls, config: dict[str, Any], custom_objects: Any = None) -> "SystemOptimizer":
        """Create the optimizer from its configuration."""
        optimizers = {
            name: keras.saving.deserialize_keras_object(inner, custom_objects=custom_objects)
            for name, inner in config["optimizers"].items()
        }
        return cls(optimizers, name=config["name"])


def _key(name: str, optimizer: Any) -> str:
    """Return the name of an optimizer's state in a file, with the class because states differ."""
    return f"{name.replace('/', ':')}.{type(optimizer).__name__}"


def rate_log(name: str) -> str:
    """Return the name of a model's learning rate in the logs of an epoch."""
    return f"{name}_learning_rate"


def learning_rates(by_model: Mapping[str, Any]) -> dict[str, float]:
    """Return the present learning rate of each optimizer, by its name in the logs."""
    found = {n: getattr(inner, "learning_rate", None) for n, inner in by_model.items()}
    rates = {n: rate for n, rate in found.items() if rate is not None}  # a MultiOptimizer has none
    return {rate_log(n): float(ops.convert_to_numpy(rate)) for n, rate in rates.items()}

"""Create optimizers from a class, name, config, instance, or a dict of these by model."""

from collections.abc import Mapping, Sequence
from typing import Any

import keras
from keras import ops

from mlsystem import _keras
from mlsystem.optimizers.optimizer_properties import scales
from mlsystem.routing import model_names


def one_each(
    given: Any, models: Sequence[str], learning_rate: Any = None, **kwargs: Any
) -> dict[str, Any]:
    """Return an optimizer per model, from one class, name or instance, or a dict by model."""
    if is_by_model(given):
        given = model_names.by_name(given, models, "optimizer")
    else:
        given = dict.fromkeys(models, given)
    if learning_rate is not None:
        kwargs["learning_rate"] = learning_rate
    return distinct(make_each(given, kwargs))


def is_by_model(given: Any) -> bool:
    """Return whether `given` is a dict of optimizers by model, not one optimizer for all."""
    return isinstance(given, Mapping) and "class_name" not in given


def make_each(given: Mapping[str, Any], kwargs: Mapping[str, Any] | None = None) -> dict[str, Any]:
    """Return the optimizer of each model for which `given` has one."""
    return {name: make(o, name, kwargs) for name, o in given.items() if o is not None}


def make(given: Any, model: str, kwargs: Mapping[str, Any] | None = None) -> Any:
    """Return an optimizer from a class, name, config or instance. A class or name takes kwargs."""
    if kwargs and not isinstance(given, (type, str)):
        raise ValueError(
            f"{list(kwargs)} cannot be applied to {given!r}: give an optimizer class or its name."
        )
    try:
        made = _made(given, dict(kwargs or {}))
    except Exception as error:
        raise ValueError(
            f"The optimizer of '{model}' cannot be made of {given!r}. "
            f"{type(error).__name__}: {error}"
        ) from error
    if not isinstance(made, keras.optimizers.Optimizer):
        raise ValueError(
            f"The optimizer of '{model}' is {given!r}, of type {type(given).__name__}. Give a "
            "Keras optimizer, its class or its name, or a dict of these by model."
        )
    return made


def _made(given: Any, kwargs: dict[str, Any]) -> Any:
    if isinstance(given, type):
        return given(**kwargs)
    if isinstance(given, str):
        return keras.optimizers.get({"class_name": given, "config": kwargs} if kwargs else given)
    is_config = isinstance(given, Mapping) and "class_name" in given
    return keras.optimizers.get(given) if is_config else given


def distinct(optimizers: Mapping[str, Any]) -> dict[str, Any]:
    """Return optimizers with their own state: copy each instance that an earlier model uses."""
    seen: set[int] = set()
    result = {}
    for name, optimizer in optimizers.items():
        key = id(getattr(optimizer, "inner_optimizer", optimizer))  # inside loss scaling
        result[name] = copy(optimizer) if key in seen else optimizer
        seen.add(key)
    return result


def extended(optimizer: Any, weights: Sequence[Any]) -> Any:
    """Return a copy of an optimizer, with its state, that also updates more weights."""
    known = _keras.optimized_weights(optimizer)
    ids = {id(weight) for weight in known}
    new = copy(optimizer)
    new.build([*known, *(weight for weight in weights if id(weight) not in ids)])
    states: dict[str, list[Any]] = {}
    for variable in optimizer.variables:
        states.setdefault(variable.path, []).append(variable)
    for variable in new.variables:  # of two weights with one name, the first stays first
        if same := states.get(variable.path):
            variable.assign(ops.copy(same.pop(0).value))
    return new


def copy(optimizer: Any) -> Any:
    """Return a new optimizer of the same configuration."""
    try:
        return type(optimizer).from_config(optimizer.get_config())
    except Exception as error:
        raise ValueError(
            f"One {type(optimizer).__name__} is given to several models, and cannot be copied: its "
            "`get_config` does not hold all that its constructor takes. Mend that, or give each "
            f"model one of its own. {type(error).__name__}: {error}"
        ) from error


def check_built(name: str, optimizer: Any, weights: Sequence[Any]) -> None:
    """Raise an error if an optimizer was built for the weights of another model."""
    if not knows(optimizer, weights):
        raise ValueError(
            f"The optimizer of '{name}' ({type(optimizer).__name__}) was built for other weights. "
            "Give each model an optimizer of its own."
        )


def knows(optimizer: Any, weights: Sequence[Any]) -> bool:
    """Return whether an optimizer was built for these weights."""
    known = {id(weight) for weight in _keras.optimized_weights(optimizer)}
    return all(id(weight) in known for weight in weights)


def with_loss_scaling(optimizer: Any, model: Any) -> Any:
    """Wrap the optimizer of a float16 model so that it scales the loss, as Keras does."""
    if not scales(optimizer) and _has_float16(model):
        return keras.optimizers.LossScaleOptimizer(optimizer)
    return optimizer


def _has_float16(model: Any) -> bool:
    """Return whether a model, or a layer in it, has the policy mixed_float16."""
    layers = _keras.flat_layers(model) if isinstance(model, keras.Layer) else [model]
    return any(layer.dtype_policy.name == "mixed_float16" for layer in layers)

"""The weights of an ensemble: one variable for each weight of a network, with a first axis."""

import functools
from collections.abc import Iterator
from typing import Any

import keras
import numpy as np
from keras import ops, tree

from mlsystem import _keras, _learner
from mlsystem._checks import is_count
from mlsystem.models import initial_weights
from mlsystem.optimizers import optimizer_properties

# They look at a whole weight, or at all weights, and so at all members at once.
_NOT_ELEMENTWISE = ("Adafactor", "Lamb", "Muon")
_CLIPS = ("clipnorm", "global_clipnorm")


class Members:
    """The members of an ensemble, as Keras models with copies of their weights."""

    def __init__(self, ensemble: Any) -> None:
        self.ensemble = ensemble

    def __len__(self) -> int:
        return int(self.ensemble.count)

    def __iter__(self) -> Iterator[Any]:
        return (self[i] for i in range(len(self)))

    def __getitem__(self, index: int) -> Any:
        index, learner = self._index(index), self.ensemble._mlsystem
        model = _clone(learner.net, learner.inputs)
        for weight, value in zip(_ordered(model, learner.net), self._values(index), strict=True):
            weight.assign(value)
        return model

    def __setitem__(self, index: int, model: Any) -> None:
        index = self._index(index)
        if not isinstance(model, keras.Layer):
            raise TypeError(
                f"members[{index}] of '{self.ensemble.name}' was set to {type(model).__name__}. "
                "Give a model of the same architecture."
            )
        given = _ordered(model, self.ensemble._mlsystem.net)
        shapes = [tuple(weight.shape) for weight in given]
        own = [tuple(stacked.shape[1:]) for stacked in self.ensemble.stacked]
        if shapes != own:
            raise ValueError(
                f"A member of '{self.ensemble.name}' has weights of the shapes {own}, and got a "
                f"model with {shapes}. Give a model of the same architecture."
            )
        for stacked, weight in zip(self.ensemble.stacked, given, strict=True):
            if _is_seed(weight):  # a member keeps its own noise
                continue
            value = np.array(ops.convert_to_numpy(stacked.value))
            value[index] = ops.convert_to_numpy(weight.value)
            stacked.assign(value)

    def _values(self, index: int) -> list[Any]:
        return [ops.convert_to_numpy(v.value)[index] for v in self.ensemble.stacked]

    def _index(self, index: Any) -> int:
        if not self.ensemble.stacked:
            raise ValueError(
                f"'{self.ensemble.name}' has no weights yet. Call it, or `setup`, first."
            )
        _check_frozen(self.ensemble)
        if isinstance(index, bool) or not hasattr(index, "__index__"):
            raise TypeError(
                f"members[{index!r}] is not the index of one member. Give a whole number from 0 "
                f"to {len(self) - 1}."
            )
        if not -len(self) <= index < len(self):
            raise IndexError(
                f"'{self.ensemble.name}' has {len(self)} members, and members[{index}] does not "
                f"exist. Give an index from 0 to {len(self) - 1}."
            )
        return range(len(self))[index]


def check(net: Any, count: Any) -> None:
    """Raise an error for what cannot be an ensemble."""
    if not isinstance(net, keras.Layer):
        raise TypeError(f"Ensemble got {net!r}. Give the network of one member: a Keras model.")
    if _learner.of(net) is not None:
        raise TypeError(
            f"Ensemble got '{net.name}', which is a {type(net).__name__}. Give the Keras network "
            "of one member. The ensemble takes the loss and the optimizer."
        )
    if not is_count(count):
        raise ValueError(f"Ensemble got count={count!r}; give the number of members, from 1.")
    _check_copied(net)


def _check_copied(net: Any) -> None:
    """Raise an error for a network without a config, before any weight is half made."""
    try:
        net.get_config()
    except NotImplementedError as error:
        name = type(net).__name__
        raise TypeError(
            f"Ensemble copies its network for each member, and '{net.name}' cannot be copied: its "
            f"class {name} needs a `get_config` with the arguments of {name}.__init__. Write one, "
            "or build the network of Keras layers, with keras.Sequential or keras.Model."
        ) from error


def check_optimizer(name: str, optimizer: Any) -> None:
    """Raise an error for an optimizer that does not work on each number alone."""
    if found := optimizer_properties.used(optimizer, _NOT_ELEMENTWISE, _CLIPS):
        raise ValueError(
            f"The optimizer of '{name}' uses {found[0]}, which would mix the members. Give one "
            "that works on each number alone, such as Adam or SGD, or `clipvalue`."
        )


def spec(inputs: Any, own: bool) -> Any:
    """Return the shapes and dtypes of the inputs of one member."""

    def one(x: Any) -> Any:
        return keras.KerasTensor(x.shape[1:] if own else x.shape, _dtype(x))

    return tree.map_structure(one, inputs)


def spec_of_shape(shape: Any) -> Any:
    """Return what `spec` does for a shape, or a list or dict of shapes."""
    if isinstance(shape, dict):
        return {name: spec_of_shape(each) for name, each in shape.items()}
    if any(isinstance(each, (list, tuple, dict)) for each in shape):
        return [spec_of_shape(each) for each in shape]
    return keras.KerasTensor(tuple(shape))


def make(ensemble: Any, net: Any, inputs: Any) -> None:
    """Create the weights of all members, from the initializers of the network."""
    if not net.built:
        _keras.compute_output_spec(net, inputs)
    ensemble._mlsystem.inputs, ensemble._mlsystem.frozen = inputs, _frozen(net)
    fresh = functools.cache(lambda: _fresh(net, ensemble.count, inputs))
    for i, weight in enumerate(_ordered(net, net)):
        ensemble.stacked.append(
            ensemble.add_weight(
                shape=(ensemble.count, *weight.shape),
                dtype=_keras.stored_dtype(weight),
                initializer=_initializer(i, fresh),
                trainable=weight.trainable,
                constraint=weight.constraint and _ForEach(weight.constraint),
                autocast=False,
                name=weight.path.replace("/", "_"),
            )
        )


class _ForEach(keras.constraints.Constraint):  # type: ignore[misc, unused-ignore]
    """The constraint of one member, for the weights of all."""

    def __init__(self, constraint: Any) -> None:
        self.constraint = constraint

    def __call__(self, w: Any) -> Any:
        return ops.vectorized_map(self.constraint, ops.convert_to_tensor(w))


def split(ensemble: Any) -> tuple[list[Any], list[Any]]:
    """Return the stacked weights as the network's trainable and other variables."""
    _check_frozen(ensemble)
    count = len(ensemble._mlsystem.net.trainable_variables)
    return list(ensemble.stacked[:count]), list(ensemble.stacked[count:])


def _check_frozen(ensemble: Any) -> None:
    """Raise an error if the order of the network's weights is another one than that of ours."""
    if ensemble._mlsystem.frozen != _frozen(ensemble._mlsystem.net):
        raise ValueError(
            f"Weights of the network of '{ensemble.name}' were frozen or unfrozen after the "
            "ensemble had made its own from them. Do that before the first call, or put it back."
        )


def _frozen(net: Any) -> list[bool]:
    """Return for each weight whether it is frozen, in an order that does not depend on that."""
    return [not weight.trainable for weight in net.weights]


def draws(net: Any) -> bool:
    """Return whether a network draws random numbers."""
    return any(map(_is_seed, net.non_trainable_variables))


def _initializer(i: int, fresh: Any) -> Any:
    def initial(shape: Any, dtype: Any = None) -> Any:
        # Shapes are worked out before the variable has its value: no clone is made then.
        if _keras.get_stateless_scope() is not None:
            return ops.zeros(shape, dtype)
        return ops.convert_to_tensor(fresh()[i], dtype)

    return initial


def _fresh(net: Any, count: int, inputs: Any) -> list[Any]:
    """Return the initial weights of all members."""
    with _keras.own_variables():  # Keras may be about to give other variables their values
        ordered = functools.partial(_ordered, net=net)
        return initial_weights.stacked(lambda: _clone(net, inputs), ordered, count)


def _clone(net: Any, inputs: Any) -> Any:
    clone = type(net).from_config(net.get_config())
    if not clone.built:
        _keras.compute_output_spec(clone, inputs)
    for own, weight in zip(clone.variables, net.variables, strict=True):
        own.trainable = weight.trainable  # the config holds what is frozen of whole layers only
    return clone


def _ordered(model: Any, net: Any) -> list[Any]:
    """Return the variables of a model in the order that those of `net` have: trainable first."""
    given: list[Any] = model.variables
    place = {id(variable): i for i, variable in enumerate(net.variables)}
    if len(given) != len(place):
        return given  # it is refused
    ordered = [*net.trainable_variables, *net.non_trainable_variables]
    return [given[place[id(variable)]] for variable in ordered]


def _is_seed(variable: Any) -> bool:
    return variable.name == "seed_generator_state"


def _dtype(x: Any) -> str:
    return keras.backend.standardize_dtype(x.dtype)

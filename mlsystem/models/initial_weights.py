"""The initial weights of many equal networks, by drawing from the initializers of one."""

import contextlib
import threading
from collections.abc import Callable, Iterator
from typing import Any

import keras
import numpy as np
from keras import ops

from mlsystem import _keras

Made = dict[int, tuple[Any, Any]]  # by the id of a variable: the variable, its initializer

_recording = threading.RLock()  # all threads have the same `keras.Layer.add_weight`


@contextlib.contextmanager
def recorded() -> Iterator[Made]:
    """Record the initializer of each weight that a layer adds inside."""
    found: Made = {}

    def add_weight(
        self: Any, shape: Any = None, initializer: Any = None, *args: Any, **kwargs: Any
    ) -> Any:
        variable = known(self, shape, initializer, *args, **kwargs)
        found[id(variable)] = variable, initializer
        return variable

    with _recording:
        known, keras.Layer.add_weight = keras.Layer.add_weight, add_weight
        try:
            yield found
        finally:
            keras.Layer.add_weight = known


def stacked(
    clone: Callable[[], Any], ordered: Callable[[Any], list[Any]], count: int
) -> list[np.ndarray]:
    """Return the initial weights of some networks, stacked.

    The first network is made. The others draw from its initializers, each with its own seed. The
    numbers are those of networks that are made one by one, which takes far longer.

    Args:
        clone: makes a network with new weights.
        ordered: lists the variables of a network.
        count: number of networks.
    """
    with recorded() as made:
        first = clone()
    variables = ordered(first)
    draws = [made.get(id(variable), (None, None))[1] for variable in variables]
    values = [ops.convert_to_numpy(variable.value) for variable in variables]
    if all(map(_is_known, draws)) and all(map(_is_of_keras, _keras.flat_layers(first))):
        more = [_drawn(draws, variables, values) for _ in range(count - 1)]
    else:
        more = [
            [ops.convert_to_numpy(variable.value) for variable in ordered(clone())]
            for _ in range(count - 1)
        ]
    return [np.stack(rows) for rows in zip(values, *more, strict=True)]


def _is_of_keras(part: Any) -> bool:
    return type(part).__module__.partition(".")[0] == "keras"


def _is_known(initializer: Any) -> bool:
    """Return whether all that an initializer does is known: it is one of Keras' own classes.

    One with a seed is not: the layer may have drawn the seed, as `EinsumDense` does, or the user
    may have fixed it.
    """
    is_own = isinstance(initializer, keras.initializers.Initializer) and _is_of_keras(initializer)
    return is_own and initializer.get_config().get("seed") is None


def _drawn(draws: list[Any], variables: list[Any], values: list[np.ndarray]) -> list[np.ndarray]:
    """Draw the weights of one more network. Where nothing is random, they are the first one's."""
    fresh = {id(draw): draw.clone() for draw in draws if _is_random(draw)}
    return [
        ops.convert_to_numpy(fresh[id(draw)](variable.shape, dtype=_keras.stored_dtype(variable)))
        if id(draw) in fresh
        else value
        for draw, variable, value in zip(draws, variables, values, strict=True)
    ]


def _is_random(initializer: Any) -> bool:
    """Return whether an initializer draws other numbers in each network."""
    return "seed" in initializer.get_config()

"""`Transform`: functions and layers applied to each batch, on the host or in the compiled step."""

import contextlib
import inspect
from collections.abc import Callable, Iterator
from typing import Any

import keras
import numpy as np
from keras import ops, tree

from mlsystem import _keras
from mlsystem._errors import named_in_errors
from mlsystem._signature import extras
from mlsystem._tensors import describe, tensor
from mlsystem.data import transform_generators
from mlsystem.data.adapter import BatchAdapter
from mlsystem.data.batch import array, mapped
from mlsystem.data.source import Source, single
from mlsystem.engine import engine
from mlsystem.engine.variable_scope import Scope

_OFFERED = ("x", "y", "sample_weight", "training")


class Transform:
    """Functions and Keras layers that a batch goes through, one after another.

    A function gets those of x, y, sample_weight and training that it names, and returns x, (x, y)
    or (x, y, sample_weight); what it does not return stays. A layer gets x, and `training` where
    it takes it.

    Args:
        given: a function, a Keras layer, or a list of these.

    Raises:
        TypeError: it is none of these, or a function asks for something else.
    """

    def __init__(self, given: Any) -> None:
        steps = given if isinstance(given, (list, tuple)) else [given]
        self.given, self.steps = steps, [_step(step) for step in steps]
        self.layers = [step for step in steps if isinstance(step, keras.Layer)]
        self.found: dict[int, Any] = {}
        self.observed: set[bool] = set()

    def __call__(self, batch: Any, training: bool) -> tuple[Any, ...]:
        """A batch of tensors transformed."""
        parts = keras.utils.unpack_x_y_sample_weight(batch)
        with named_in_errors("The transform of the data", x=parts[0], y=parts[1]):
            for step in self.steps:
                parts = step(parts, training)
        x, y, weight = parts
        return (x, y, weight) if weight is not None else (x,) if y is None else (x, y)

    def on_host(self, batch: Any, training: bool) -> Any:
        """A batch transformed, of NumPy arrays before and after."""
        with engine.step_scope(()):
            return plain(self(mapped(array, batch), training))

    def inside(self, batch: Any, training: bool) -> Any:
        """A batch transformed within a step."""
        return self(mapped(tensor, batch), training)

    def observe(self, batch: Any, training: bool, on_host: bool = False) -> Any:
        """A batch transformed with no effect but to note the variables that take part."""
        with self.kept(), engine.step_scope(()), _Recorder() as scope:
            result = self.on_host(batch, training) if on_host else self.inside(batch, training)
        self.found |= scope.used
        self.observed.add(training)
        return result

    @property
    def variables(self) -> list[Any]:
        """The variables that it holds, those of its layers, and those seen to take part."""
        held = [
            v
            for v in transform_generators.find(self.given).values()
            if not transform_generators.is_generator(v)
        ]
        known = [*held, *(v for layer in self.layers for v in layer.variables)]
        found = {id(v): v for v in known} | self.found
        # On torch a step holds this one anyway; elsewhere a step cannot draw from it.
        seed = _keras.known_global_seed()
        return [v for v in found.values() if v is not seed]

    @property
    def _generators(self) -> dict[str, Any]:
        """The generators of NumPy and Python that it holds."""
        found = transform_generators.find(self.given).items()
        return {path: value for path, value in found if transform_generators.is_generator(value)}

    def kept(self) -> contextlib.AbstractContextManager[None]:
        """The context of a rehearsal, after which the generators are where they were."""
        return transform_generators.kept(self._generators.values())

    def _write(self, states: dict[str, Any]) -> None:
        for path, generator in self._generators.items():
            if path in states:
                transform_generators.write(generator, states[path])

    def get_state(self) -> dict[str, Any]:
        """All that what it does next depends on: the values of variables, and the generators."""
        return {
            "variables": [np.array(ops.convert_to_numpy(v)) for v in self.variables],
            "generators": {
                path: transform_generators.read(g) for path, g in self._generators.items()
            },
        }

    def check(self, state: dict[str, Any]) -> None:
        """Refuses the state of a transform with other variables."""
        now = [tuple(variable.shape) for variable in self.variables]
        if now != (then := [np.shape(value) for value in state["variables"]]):
            raise ValueError(
                f"The transform of the data has variables of the shapes {now}, and the checkpoint "
                f"holds {then}. Give the transform of before."
            )

    def set_state(self, state: dict[str, Any] | None) -> None:
        """Goes to where the state was taken; there may have been no transform then."""
        if state is None:
            return
        self.check(state)
        for variable, value in zip(self.variables, state["variables"], strict=True):
            variable.assign(value)
        self._write(state["generators"])


class Transformed(BatchAdapter):
    """A data set whose batches are transformed on the host.

    Args:
        source: the data set.
        transform: what is done to each batch; None leaves it as it is.
        training: whether it is data to train on.
    """

    def __init__(self, source: Source, transform: Transform | None, training: bool) -> None:
        super().__init__()
        self.source, self.transform, self.training = source, transform, training

    def __iter__(self) -> Iterator[Any]:
        """One epoch of transformed batches."""
        for batch in self.source:
            transform = self.transform
            yield batch if transform is None else transform.on_host(batch, self.training)

    def examples(self) -> list[Any]:
        """See `BatchAdapter`. Draws nothing from the seeds of the transform."""
        batches = self.source.examples()
        if self.transform is None:
            return batches
        return [self.transform.observe(b, self.training, on_host=True) for b in batches]

    @property
    def num_batches(self) -> int | None:
        """The number of batches in an epoch; None where nobody knows."""
        return self.source.length

    def get_state(self) -> dict[str, Any]:
        """What a checkpoint keeps: the states of the data set and of the transform."""
        self._observe()
        transform = None if self.transform is None else self.transform.get_state()
        return {"source": self.source.get_state(), "transform": transform}

    def set_state(self, state: dict[str, Any]) -> None:
        """Goes to where the state was taken."""
        self._observe()
        self.source.set_state(state["source"])
        self.catch_up(state)

    def catch_up(self, state: dict[str, Any]) -> None:
        """See `BatchAdapter`."""
        if self.transform is not None:
            self.transform.set_state(state["transform"])

    def _observe(self) -> None:
        """Finds the variables of the transform, unless they are known."""
        if self.transform is not None and self.training not in self.transform.observed:
            self.examples()


class _Recorder(Scope):
    """Notes which variables are read or assigned, and lets none change."""

    def __init__(self) -> None:
        super().__init__([])
        self.used: dict[int, Any] = {}

    def get_current_value(self, variable: Any) -> Any:
        self.used[id(variable)] = variable
        return super().get_current_value(variable)

    def add_update(self, update: tuple[Any, Any]) -> None:
        self.used[id(update[0])] = update[0]
        super().add_update(update)


def plain(batch: Any) -> Any:
    """A batch as NumPy arrays."""
    return mapped(_plain, batch)


def _plain(leaf: Any) -> Any:
    is_array = leaf is None or isinstance(leaf, np.ndarray)
    return single(leaf if is_array else ops.convert_to_numpy(leaf))


# One step -----------------------------------------------------------------------------------

_Parts = tuple[Any, Any, Any]


def _step(given: Any) -> Callable[[_Parts, bool], _Parts]:
    """A function or layer as a function of x, y and sample_weight, which are returned."""
    if isinstance(given, type) or not callable(given):
        raise TypeError(
            f"transform got {given!r}. Give a function of {_listed()}, a Keras layer, or a list of "
            "these."
        )
    if isinstance(given, keras.Layer):
        return lambda parts, training: _of_layer(given, parts, training)
    places = {name: _OFFERED.index(name) for name in _named(given)}

    def step(parts: _Parts, training: bool) -> _Parts:
        offered = (*parts, training)
        return _merged(given, parts, given(**{name: offered[i] for name, i in places.items()}))

    return step


def _of_layer(layer: Any, parts: _Parts, training: bool) -> _Parts:
    x = layer(parts[0], **extras(layer.call, training=training))
    return x, parts[1], parts[2]


def _named(fn: Any) -> list[str]:
    """What a function asks for."""
    try:
        parameters = inspect.signature(fn).parameters.values()
    except ValueError:
        raise TypeError(
            f"Nobody knows what the transform {_name(fn)} asks for. Call it in a function of x."
        ) from None
    if any(p.kind is p.VAR_KEYWORD for p in parameters):
        return list(_OFFERED)
    needed = [p.name for p in parameters if p.default is p.empty and p.kind is not p.VAR_POSITIONAL]
    if wrong := [name for name in needed if name not in _OFFERED]:
        raise TypeError(
            f"The transform {_name(fn)} asks for '{wrong[0]}'; what it can name is {_listed()}."
        )
    return [p.name for p in parameters if p.name in _OFFERED]


def _merged(fn: Any, parts: _Parts, result: Any) -> _Parts:
    """What a function returned, with what it left out as it was."""
    found = result if isinstance(result, tuple) else (result,)
    leaves = [leaf for leaf in tree.flatten(found) if leaf is not None]
    is_batch = bool(leaves) and all(len(getattr(leaf, "shape", ())) for leaf in leaves)
    if not found or len(found) > 3 or found[0] is None or not is_batch:
        raise ValueError(
            f"The transform {_name(fn)} returned {describe(result)}. Return a batch, x, (x, y)"
            " or (x, y, sample_weight), of arrays or tensors whose first axis counts the samples."
        )
    merged = (*found, *parts[len(found) :])
    _check_sizes(fn, merged)
    return merged


def _check_sizes(fn: Any, found: tuple[Any, ...]) -> None:
    sizes = [part.shape[0] for part in found if hasattr(part, "shape")]
    if len({size for size in sizes if isinstance(size, int)}) > 1:
        raise ValueError(
            f"After the transform {_name(fn)}, x, y and sample_weight are {describe(found)}: "
            f"of {', '.join(map(str, sizes))} samples. Return all that have changed."
        )


def _name(fn: Any) -> str:
    return repr(getattr(fn, "__qualname__", fn))


def _listed() -> str:
    return f"{', '.join(_OFFERED[:-1])} and {_OFFERED[-1]}"

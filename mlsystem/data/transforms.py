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
    """Functions and Keras layers that are applied to a batch, one after another.

    A function takes any of the arguments x, y, sample_weight and training. It returns x, (x, y) or
    (x, y, sample_weight). Parts that it does not return stay unchanged. A layer gets x, and
    `training` if its `call` has this argument.

    Args:
        given: a function, a Keras layer, or a list of these.

    Raises:
        TypeError: it is none of these, or a function has another argument.
    """

    def __init__(self, given: Any) -> None:
        steps = given if isinstance(given, (list, tuple)) else [given]
        self.given, self.steps = steps, [_step(step) for step in steps]
        self.layers = [step for step in steps if isinstance(step, keras.Layer)]
        self.found: dict[int, Any] = {}
        self.observed: set[bool] = set()

    def __call__(self, batch: Any, training: bool) -> tuple[Any, ...]:
        """Transform a batch of tensors."""
        parts = keras.utils.unpack_x_y_sample_weight(batch)
        with named_in_errors("The transform of the data", x=parts[0], y=parts[1]):
            for step in self.steps:
                parts = step(parts, training)
        x, y, weight = parts
        return (x, y, weight) if weight is not None else (x,) if y is None else (x, y)

    def on_host(self, batch: Any, training: bool) -> Any:
        """Transform a batch of NumPy arrays to a batch of NumPy arrays."""
        with engine.step_scope(()):
            return plain(self(mapped(array, batch), training))

    def inside(self, batch: Any, training: bool) -> Any:
        """Transform a batch inside a step."""
        return self(mapped(tensor, batch), training)

    def observe(self, batch: Any, training: bool, on_host: bool = False) -> Any:
        """Transform a batch without side effects, to record the variables that take part."""
        with self.kept(), engine.step_scope(()), _Recorder() as scope:
            result = self.on_host(batch, training) if on_host else self.inside(batch, training)
        self.found |= scope.used
        self.observed.add(training)
        return result

    @property
    def variables(self) -> list[Any]:
        """The variables of the transform: in its functions, in its layers, and recorded ones."""
        held = [
            v
            for v in transform_generators.find(self.given).values()
            if not transform_generators.is_generator(v)
        ]
        known = [*held, *(v for layer in self.layers for v in layer.variables)]
        found = {id(v): v for v in known} | self.found
        # On torch a step holds this seed anyway. Elsewhere a step cannot draw from it.
        seed = _keras.known_global_seed()
        return [v for v in found.values() if v is not seed]

    @property
    def _generators(self) -> dict[str, Any]:
        """The generators of NumPy and Python in the transform."""
        found = transform_generators.find(self.given).items()
        return {path: value for path, value in found if transform_generators.is_generator(value)}

    def kept(self) -> contextlib.AbstractContextManager[None]:
        """Return the context of a rehearsal. It restores the generators afterwards."""
        return transform_generators.kept(self._generators.values())

    def _write(self, states: dict[str, Any]) -> None:
        for path, generator in self._generators.items():
            if path in states:
                transform_generators.write(generator, states[path])

    def get_state(self) -> dict[str, Any]:
        """Return the state of the transform: the values of variables and generators."""
        return {
            "variables": [np.array(ops.convert_to_numpy(v)) for v in self.variables],
            "generators": {
                path: transform_generators.read(g) for path, g in self._generators.items()
            },
        }

    def check(self, state: dict[str, Any]) -> None:
        """Raise an error if a state belongs to a transform with other variables."""
        now = [tuple(variable.shape) for variable in self.variables]
        if now != (then := [np.shape(value) for value in state["variables"]]):
            raise ValueError(
                f"The transform of the data has variables of the shapes {now}, and the checkpoint "
                f"holds {then}. Use the same transform as before."
            )

    def set_state(self, state: dict[str, Any] | None) -> None:
        """Restore a state. None belongs to a checkpoint without a transform."""
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
        transform: the transform of each batch. None leaves batches unchanged.
        training: whether the data is training data.
    """

    def __init__(self, source: Source, transform: Transform | None, training: bool) -> None:
        super().__init__()
        self.source, self.transform, self.training = source, transform, training

    def __iter__(self) -> Iterator[Any]:
        """Yield one epoch of transformed batches."""
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
        """The number of batches in an epoch. None if it is unknown."""
        return self.source.length

    def get_state(self) -> dict[str, Any]:
        """Return the state for a checkpoint: the states of the data set and of the transform."""
        self._observe()
        transform = None if self.transform is None else self.transform.get_state()
        return {"source": self.source.get_state(), "transform": transform}

    def set_state(self, state: dict[str, Any]) -> None:
        """Restore a state."""
        self._observe()
        self.source.set_state(state["source"])
        self.catch_up(state)

    def catch_up(self, state: dict[str, Any]) -> None:
        """See `BatchAdapter`."""
        if self.transform is not None:
            self.transform.set_state(state["transform"])

    def _observe(self) -> None:
        """Find the variables of the transform, unless they are known."""
        if self.transform is not None and self.training not in self.transform.observed:
            self.examples()


class _Recorder(Scope):
    """A scope that records the variables that are read or assigned, and changes none."""

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
    """Return a batch as NumPy arrays."""
    return mapped(_plain, batch)


def _plain(leaf: Any) -> Any:
    is_array = leaf is None or isinstance(leaf, np.ndarray)
    return single(leaf if is_array else ops.convert_to_numpy(leaf))


# One step -----------------------------------------------------------------------------------

_Parts = tuple[Any, Any, Any]


def _step(given: Any) -> Callable[[_Parts, bool], _Parts]:
    """Turn a function or layer into a function from (x, y, sample_weight) to the same three."""
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
    """Return the names of the arguments that a function takes."""
    try:
        parameters = inspect.signature(fn).parameters.values()
    except ValueError:
        raise TypeError(
            f"The arguments of the transform {_name(fn)} are unknown. Call it in a function of x."
        ) from None
    if any(p.kind is p.VAR_KEYWORD for p in parameters):
        return list(_OFFERED)
    needed = [p.name for p in parameters if p.default is p.empty and p.kind is not p.VAR_POSITIONAL]
    if wrong := [name for name in needed if name not in _OFFERED]:
        raise TypeError(
            f"The transform {_name(fn)} asks for '{wrong[0]}'. It can ask for {_listed()}."
        )
    return [p.name for p in parameters if p.name in _OFFERED]


def _merged(fn: Any, parts: _Parts, result: Any) -> _Parts:
    """Return the result of a function, with the parts that it left out unchanged."""
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

"""`ServedModel`: a model as a function of named arrays, which is what an exported file holds."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from keras import ops, tree

Arrays = dict[str, np.ndarray[Any, Any]]
OTHER_SIZE = 16  # of a dimension that is free and that nobody has seen


@dataclass(frozen=True)
class Slot:
    """The place of an input among the arguments of a call, by its number."""

    index: int


@dataclass(frozen=True)
class Port:
    """An input or output of an exported file.

    Attributes:
        name: its name in the file.
        shape: its shape. None stands for a size that is free, such as that of the batch.
        dtype: its dtype, as Keras spells it.
        seen: a size for each dimension, for trying out.
        limits: the smallest and the greatest whole number seen.
    """

    name: str
    shape: tuple[int | None, ...]
    dtype: str
    seen: tuple[int, ...] = ()
    limits: tuple[int, int] = (0, 1)

    def array(self, batch: int, rng: np.random.Generator) -> np.ndarray[Any, Any]:
        """Return numbers that fit the input, with a batch of this size."""
        shape = [s if n is None else n for n, s in zip(self.shape, self.seen, strict=True)]
        if shape and self.shape[0] is None:
            shape[0] = batch
        if "int" in self.dtype:
            return rng.integers(*self.limits, shape, endpoint=True).astype(self.dtype)
        if self.dtype == "bool":
            return rng.integers(0, 2, shape).astype(bool)
        values = rng.uniform(0.1, 0.9, shape)
        return np.asarray(ops.convert_to_numpy(ops.convert_to_tensor(values, self.dtype)))

    def facts(self) -> dict[str, Any]:
        """Return the port as the manifest has it."""
        return {"name": self.name, "shape": list(self.shape), "dtype": self.dtype}


@dataclass(frozen=True)
class ServedModel:
    """A model to export, with the arguments that it is called with.

    Call it with one array for each input. It returns the outputs by name.

    Attributes:
        name: the path of the model in its system.
        model: the Keras model or layer. None while it travels to another process.
        arguments: the positional and the keyword arguments of a call, with slots for arrays.
        inputs: the inputs, in the order of the slots.
        outputs: the outputs.
        expected: what the model returns for made-up batches, by their size.
        is_random: whether the model draws random numbers, so that it returns others each time.
    """

    name: str
    model: Any
    arguments: Any
    inputs: Sequence[Port]
    outputs: Sequence[Port] = ()
    expected: Mapping[int, Arrays] = field(default_factory=dict)
    is_random: bool = False

    def __call__(self, *arrays: Any) -> dict[str, Any]:
        """Run the model in inference mode."""
        args, kwargs = tree.map_structure(
            lambda leaf: arrays[leaf.index] if isinstance(leaf, Slot) else leaf, self.arguments
        )
        return named_outputs(self.model(*args, **kwargs))

    def numbers(self, given: Sequence[Any]) -> Arrays:
        """Run the model on NumPy arrays, eagerly."""
        found = self(*(ops.convert_to_tensor(array) for array in given))
        return {n: np.asarray(ops.convert_to_numpy(value)) for n, value in found.items()}

    def arrays(self, batch: int) -> list[np.ndarray[Any, Any]]:
        """Return numbers for all inputs, with a batch of this size. They are always the same."""
        rng = np.random.default_rng(batch)
        return [port.array(batch, rng) for port in self.inputs]


def named_outputs(outputs: Any) -> dict[str, Any]:
    """Name the outputs: by their keys, by their positions, or `output` if there is one.

    >>> named_outputs({"mean": 1, "heads": [2, 3]})
    {'heads_0': 2, 'heads_1': 3, 'mean': 1}
    """
    found = [
        ("_".join(map(str, path)), leaf)
        for path, leaf in tree.flatten_with_path(outputs)
        if leaf is not None
    ]
    return {_output_name(name): leaf for name, leaf in found}


def _output_name(path: str) -> str:
    return f"output_{path}" if path.isdigit() else path or "output"

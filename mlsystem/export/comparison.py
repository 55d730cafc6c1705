"""Compare what an exported file computes with what the model computes."""

from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np

from mlsystem.engine import engine
from mlsystem.export import runtimes
from mlsystem.export.formats import Format, versioned
from mlsystem.export.served_model import Arrays, Port, ServedModel

BATCHES = (1, 7)
# The greatest difference, relative to the greatest number of an output if that is above 1.
TOLERANCES = {"float16": 1e-2, "bfloat16": 5e-2}
TOLERANCE = 1e-5


def observed(served: ServedModel) -> ServedModel:
    """Run a model on two batches, and note what it returns."""
    with engine.tracing(served.model), engine.full_precision():
        found, again = ({n: served.numbers(served.arrays(n)) for n in BATCHES} for _ in range(2))
    one, other = (found[batch] for batch in BATCHES)
    outputs = [_port(name, one[name], other[name]) for name in one]
    is_random = not all(_are_equal(found[batch], again[batch]) for batch in BATCHES)
    return replace(served, outputs=outputs, expected=found, is_random=is_random)


def _port(name: str, one: Any, other: Any) -> Port:
    """Return an output. Those sizes are free that follow the batch."""
    pairs = zip(one.shape, other.shape, strict=True)
    return Port(name, tuple(a if a == b else None for a, b in pairs), str(one.dtype))


def _are_equal(one: Arrays, other: Arrays) -> bool:
    return all(np.array_equal(one[name], other[name], equal_nan=True) for name in one)


def check(served: ServedModel, path: Path, wanted: Format) -> dict[str, Any] | None:
    """Run a file in its own runtime, and compare. None if the runtime is not installed.

    Raises:
        ValueError: the file does not run, or gives other numbers.
    """
    run = runtimes.runtime(wanted)
    if run is None:
        return None
    names = [port.name for port in served.inputs]
    with engine.full_precision():
        found = {batch: run(path, names, served.arrays(batch)) for batch in BATCHES}
    largest = max(compared(served, found[batch], batch) for batch in BATCHES)
    return {
        "runtime": versioned(wanted.runtime),
        "batch_sizes": list(BATCHES),
        # The numbers of a model that draws random ones cannot be compared.
        "largest_difference": None if served.is_random else largest,
    }


def compared(served: ServedModel, found: Mapping[str, Any], batch: int) -> float:
    """Return the largest difference of a result from what the model returned for this batch.

    Raises:
        ValueError: the results differ in names or shapes, or in numbers by too much.
    """
    expected = served.expected[batch]
    if set(expected) != set(found):
        raise ValueError(f"its outputs are {sorted(found)}; the model has {sorted(expected)}.")
    pairs = {name: (array, np.asarray(found[name])) for name, array in expected.items()}
    for name, (array, other) in pairs.items():
        if array.shape != other.shape:
            raise ValueError(
                f"its output '{name}' has the shape {other.shape} for a batch of {batch}; the "
                f"model's has {array.shape}."
            )
    if served.is_random:
        return 0.0
    return max(_difference(name, *pair, batch) for name, pair in pairs.items())


def _difference(name: str, array: Any, other: Any, batch: int) -> float:
    allowed = TOLERANCES.get(str(array.dtype), TOLERANCE)
    array, other = (np.asarray(a).astype("float64") for a in (array, other))
    # An output may be infinite or not a number in places: there, the file has to have the same.
    differ = ~((array == other) | (np.isnan(array) & np.isnan(other)))
    scale = float(np.abs(array).max(initial=1.0, where=np.isfinite(array)))
    largest = float(np.abs(array[differ] - other[differ]).max(initial=0.0)) / scale
    if not largest <= allowed:
        raise ValueError(
            f"its output '{name}' differs from the model's by {largest:.1e} for a batch of "
            f"{batch}; {allowed:.0e} is allowed."
        )
    return largest

"""Run `forward` on made-up data, watch the calls in it, and discard all effects."""

import contextlib
import math
import warnings
from collections.abc import Callable, Iterable, Iterator
from typing import Any

import keras
import numpy as np
from keras import tree

from mlsystem._learner import Learner
from mlsystem.data.batch import Batch, make_batch
from mlsystem.diagnostics.gradient_measurement import without_effects
from mlsystem.engine import engine

Call = Callable[..., Any]


def made_up_batch(learner: Learner) -> Batch:
    """Make a batch of the shapes and ranges of the batch from which the weights were built.

    Whole numbers are 0 if their range is not known, as in a loaded system.
    """
    symbols, rng = tree.flatten(learner.symbols), np.random.default_rng(0)
    limits = learner.ranges if len(learner.ranges) == len(symbols) else [(0, 0)] * len(symbols)
    leaves = [_values(*one, rng) for one in zip(symbols, limits, strict=True)]
    data = tree.pack_sequence_as(learner.symbols, leaves)
    return make_batch(keras.utils.unpack_x_y_sample_weight(data))


def _values(symbol: Any, limits: tuple[int, int], rng: np.random.Generator) -> Any:
    """Return numbers of a shape: fractions safe to divide by, or all whole numbers in a range."""
    if symbol is None:
        return None
    if "float" in symbol.dtype:
        return rng.uniform(0.1, 0.9, symbol.shape).astype("float32")
    numbers = np.linspace(*limits, math.prod(symbol.shape)).round()
    return rng.permutation(numbers).reshape(symbol.shape).astype(symbol.dtype)


@contextlib.contextmanager
def discarded(learner: Learner) -> Iterator[None]:
    """Discard what a run inside changes, and its warnings."""
    with contextlib.ExitStack() as stack:
        stack.enter_context(warnings.catch_warnings())
        warnings.simplefilter("ignore")
        stack.enter_context(np.errstate(all="ignore"))
        stack.enter_context(without_effects(learner))
        stack.enter_context(engine.step_scope(()))
        stack.enter_context(engine.discarding(learner.model))
        yield


@contextlib.contextmanager
def watched(
    layers: Iterable[tuple[str, Any]], watching: Callable[[str, Call], Call]
) -> Iterator[None]:
    """Replace how named layers are called by `watching(name, call)`."""
    replaced = []
    try:
        for name, layer in layers:
            for method in ("call", "forward"):  # torch calls a model by its `forward`
                if callable(call := getattr(layer, method, None)):
                    replaced.append((vars(layer), method, vars(layer).get(method)))
                    vars(layer)[method] = watching(name, call)
        yield
    finally:
        for attributes, method, before in reversed(replaced):
            attributes.pop(method)
            if before is not None:
                attributes[method] = before

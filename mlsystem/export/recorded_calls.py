"""Record with which arguments a system calls its members, in a run whose effects are discarded."""

import contextlib
import functools
import math
import warnings
from collections.abc import Iterator, Sequence
from typing import Any

import keras
import numpy as np
from keras import tree

from mlsystem import _learner
from mlsystem._learner import Learner
from mlsystem.data.batch import make_batch
from mlsystem.diagnostics.gradient_measurement import without_effects
from mlsystem.engine import engine
from mlsystem.routing import members
from mlsystem.step.forward import call_forward

Call = tuple[tuple[Any, ...], dict[str, Any]]


def recorded(learner: Learner) -> tuple[dict[str, Call], Exception | None]:
    """Run `forward` on made-up data, and return the arguments of the first call of each member.

    A member that `forward` does not call has none. A copy is called as its source is. If `forward`
    fails, the calls before are known, and the error is returned too.
    """
    calls: dict[str, Call] = {}
    with contextlib.ExitStack() as stack:
        stack.enter_context(warnings.catch_warnings())
        warnings.simplefilter("ignore")
        stack.enter_context(np.errstate(all="ignore"))
        stack.enter_context(without_effects(learner))
        stack.enter_context(engine.step_scope(()))
        stack.enter_context(engine.discarding(learner.model))
        stack.enter_context(_watched(_layers(learner), calls))
        batch = make_batch(keras.utils.unpack_x_y_sample_weight(_made_up(learner)))
        try:
            call_forward(learner, batch, training=False)
        except Exception as error:
            return calls, error
    return calls, None


def _layers(learner: Learner) -> list[tuple[str, Any]]:
    """Return the layers to watch, each with the name of its member."""
    found = [(n, m) for n, m in learner.members().items() if not isinstance(m, members.Own)]
    return found + [(name, m.source) for name, m in found if _learner.is_copy(m)]


def _made_up(learner: Learner) -> Any:
    """Return data of the shapes of the batch from which the weights were built.

    Whole numbers have the range of that batch, if it is known. A loaded system has zeros.
    """
    symbols = tree.flatten(learner.symbols)
    limits = learner.ranges if len(learner.ranges) == len(symbols) else [(0, 0)] * len(symbols)
    rng = np.random.default_rng(0)
    leaves = [_values(*one, rng) for one in zip(symbols, limits, strict=True)]
    return tree.pack_sequence_as(learner.symbols, leaves)


def _values(symbol: Any, limits: tuple[int, int], rng: np.random.Generator) -> Any:
    if symbol is None:
        return None
    if "float" in symbol.dtype:
        return rng.uniform(0.1, 0.9, symbol.shape).astype("float32")
    numbers = np.linspace(*limits, math.prod(symbol.shape)).round()
    return numbers.reshape(symbol.shape).astype(symbol.dtype)


@contextlib.contextmanager
def _watched(layers: Sequence[tuple[str, Any]], calls: dict[str, Call]) -> Iterator[None]:
    """Record the first call of each member. Layers are called by `call`, on torch by `forward`."""
    replaced = []
    try:
        for name, layer in layers:
            for method in ("call", "forward"):
                if callable(call := getattr(layer, method, None)):
                    replaced.append((vars(layer), method, vars(layer).get(method)))
                    vars(layer)[method] = _recording(name, call, calls)
        yield
    finally:
        for attributes, method, before in reversed(replaced):
            attributes.pop(method)
            if before is not None:
                attributes[method] = before


def _recording(name: str, call: Any, calls: dict[str, Call]) -> Any:
    @functools.wraps(call)
    def recording(*args: Any, **kwargs: Any) -> Any:
        calls.setdefault(name, (args, kwargs))
        return call(*args, **kwargs)

    return recording

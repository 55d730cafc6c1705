"""`Snapshot`: the state of training before a measurement, put back after it to the bit."""

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import keras
import numpy as np
from keras import ops

from mlsystem import _keras, _learner
from mlsystem._learner import Learner, variables_once
from mlsystem.data.adapter import BatchAdapter
from mlsystem.data.data_state import DataState
from mlsystem.engine import engine, random_state
from mlsystem.saving import trainable_state

_OF_FIT = ("history", "stop_training")  # attributes that Keras' `fit` sets


class Snapshot:
    """The state of training between the setup of a `fit` and its first batch.

    Everything is copied to the host: a compiled step may reuse the memory of the values.

    Args:
        model: the model or system, set up and in a call of `fit`.
        data: the state of the data set, if it has one that `fit` does not hold.
        begun: that state, as it was before `fit`.
    """

    def __init__(self, model: Any, data: DataState, begun: Any) -> None:
        self.model, learner = model, model._mlsystem
        self.data, self.begun = data, begun
        adapter, self.transform = learner.call.arguments.epoch.data_adapter, learner.call.transform
        if isinstance(adapter, BatchAdapter):
            self.data = DataState(adapter)
            self.begun = self.data.read()
        self.drawn = None if self.transform is None else self.transform.get_state()
        self.values = [(v, _array(v)) for v in _variables(learner)]
        self.buffers = engine.buffers(model)
        self.random, self.seed = random_state.state(), random_state.seed()
        self.trainable = trainable_state.state(model) if _learner.is_system(model) else None
        self.counted = _counted(learner)

    @contextmanager
    def put_back(self) -> Iterator[None]:
        """Put the state back at the end of this context, also after an error."""
        try:
            with _same_history(self.model):
                yield
        finally:
            if self.trainable is not None:
                trainable_state.restore(self.model, self.trainable)
            self._assign()
            self._put_random_back()
            self._put_counts_back()

    def _assign(self) -> None:
        known = {id(variable) for variable, _ in self.values}
        for variable, value in self.values:
            variable.assign(value)
        for metric in self.model.metrics:
            if any(id(variable) not in known for variable in metric.variables):
                metric.reset_state()
        self.buffers()

    def _put_random_back(self) -> None:
        # The plain attributes of a data set may have changed since, or may not.
        start = {} if self.data.pair is not None else self.data.start
        self.data.write({**start, **self.begun} if start else self.begun)
        if self.transform is not None:
            self.transform.set_state(self.drawn)
        random_state.restore(self.random)
        random_state.set_seed(self.seed)
        if self.seed is None:  # the first draw without a seed makes its generator
            _keras.forget_global_seed()

    def _put_counts_back(self) -> None:
        compiled, logs = self.model._mlsystem.compiled, self.model._mlsystem.logs
        compiled.batches, shown, filled, skips = self.counted
        compiled.shown, logs.filled, logs.known_skips = dict(shown), set(filled), dict(skips)


@contextmanager
def _same_history(model: Any) -> Iterator[None]:
    """Keep the `history` of the last `fit` of a user, and whether it was stopped."""
    before = {name: vars(model)[name] for name in _OF_FIT if name in vars(model)}
    try:
        yield
    finally:
        for name in _OF_FIT:
            vars(model).pop(name, None)
        vars(model).update(before)


def take(model: Any, given: dict[str, Any], data: Any) -> Snapshot:
    """Set a model up as `fit` does, and return the state before its first batch.

    Args:
        model: the model or system.
        given: the arguments of `fit`.
        data: the data set that is read: a part of an `MLData`, or what `fit` gets.
    """
    state = DataState(data)
    keeper = _Keeper(state, state.read())
    try:
        with _same_history(model):
            model.fit(**given, callbacks=[keeper])
    except _Ready:
        state.write({**state.start, **keeper.begun} if state.pair is None else keeper.begun)
    assert keeper.found is not None
    return keeper.found


class _Ready(Exception):
    """Ends a `fit` before its first batch."""


class _Keeper(keras.callbacks.Callback):
    """Takes the snapshot when a model is set up, and ends the `fit`."""

    def __init__(self, data: DataState, begun: Any) -> None:
        super().__init__()
        self.data, self.begun = data, begun
        self.found: Snapshot | None = None

    def on_train_begin(self, logs: Any = None) -> None:
        """Take the snapshot. See Keras."""
        self.found = Snapshot(self.model, self.data, self.begun)
        raise _Ready


def _variables(learner: Learner) -> list[Any]:
    return variables_once([*learner.state_variables(), *learner.model.metrics_variables])


def _array(variable: Any) -> Any:
    return np.array(ops.convert_to_numpy(variable))


def _counted(learner: Learner) -> Any:
    """Return what is counted on the host."""
    logs, compiled = learner.logs, learner.compiled
    return compiled.batches, dict(compiled.shown), set(logs.filled), dict(logs.known_skips)

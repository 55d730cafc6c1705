"""`validation_every`: validate every N batches instead of after each epoch."""

import contextlib
import functools
import warnings
from collections.abc import Callable, Iterator
from typing import Any

import numpy as np
from keras import ops

from mlsystem import _keras
from mlsystem.callbacks.batch_callback import BatchCallback
from mlsystem.data.transforms import Transform
from mlsystem.engine import engine, random_state
from mlsystem.fit.validation import Validation
from mlsystem.saving import data_position


class ValidateEvery(BatchCallback):
    """A callback that validates every N batches, counted over the whole `fit`.

    Args:
        every: number of batches between validations.
        validation: the validation sets.
        data: the training data.
    """

    def __init__(self, every: int, validation: Validation, data: Any) -> None:
        super().__init__()
        self.every, self.validation, self.data = every, validation, data
        validation.inside = self
        # A checkpoint saves these two attributes.
        self.total = 0
        self.latest: dict[str, Any] = {}

    def follow(self, callbacks: Any, epoch: Any) -> None:
        """Prepare the evaluation. See `BatchCallback`."""
        # No attribute holds the callback list, because the list is a callback that holds this one.
        self._wait = functools.partial(_keras.wait_for, callbacks)
        self._evaluate: Callable[[], dict[str, Any]] = functools.partial(
            self.validation.evaluate, self.model, callbacks
        )

    def on_train_begin(self, logs: Any = None) -> None:
        """Clear the recorded validations. `fit` calls all `on_` methods."""
        self.model.history.validations = {}

    def on_epoch_begin(self, epoch: int, logs: Any = None) -> None:
        """Drop the logs of the epoch before."""
        self.latest = {}

    def after_batches(self, first: int, last: int) -> None:
        """Validate if it is due. See `BatchCallback`."""
        before, self.total = self.total, self.total + last + 1 - first
        if self.total // self.every > before // self.every:
            self._wait()
            with undisturbed(self.model, self.data):
                self.latest = self._evaluate()
            self._record({f"val_{name}": value for name, value in self.latest.items()})

    def on_train_end(self, logs: Any = None) -> None:
        """Warn if training had too few batches to validate."""
        if not self.total // self.every:
            warnings.warn(
                f"fit got validation_every={self.every}, and trained on {self.total} batches: it "
                "never validated.",
                stacklevel=2,
            )

    def _record(self, logs: dict[str, Any]) -> None:
        for name, value in {"batch": self.total, **logs}.items():
            self.model.history.validations.setdefault(name, []).append(value)
        if self.params["verbose"] != 0:
            shown = " - ".join(f"{name}: {value:.4f}" for name, value in logs.items())
            print(f"\nAfter batch {self.total}: {shown}")


@contextlib.contextmanager
def undisturbed(model: Any, data: Any) -> Iterator[None]:
    """Keep the state of training unchanged by an evaluation in this context.

    Args:
        model: the model that is trained.
        data: the training data. If other threads or processes run its Python code meanwhile, the
            global random generators are not reset, because the data may draw from them.
    """
    before, seeds = _arrays(model.metrics_variables), _arrays(_seeds(model))
    drawn = [(transform, transform.get_state()) for transform in _transforms(model, data)]
    learner, random, seed = model._mlsystem, random_state.state(), random_state.seed()
    compiled, filled = learner.compiled, set(learner.logs.filled)
    shown, batches = compiled.shown, compiled.batches
    try:
        with engine.aside(model):
            yield
    finally:
        _empty_new(model, before)
        for variable, value in [*before.values(), *seeds.values()]:
            variable.assign(value)
        for transform, state in drawn:
            transform.set_state(state)
        compiled.shown, compiled.batches, learner.logs.filled = shown, batches, filled
        ahead = data_position.reads_ahead(data) or getattr(data, "workers", 1) > 1
        data_position.restore(random, ahead)
        random_state.set_seed(seed)


def _seeds(model: Any) -> list[Any]:
    """Return the states of the seed generators of the model and its layers."""
    return [v for v in model.variables if v.name == "seed_generator_state"]


def _transforms(model: Any, data: Any) -> list[Any]:
    """Return the transforms applied to batches before the step or inside it."""
    found = [getattr(data, "transform", None), model._mlsystem.call.transform]
    return [transform for transform in found if isinstance(transform, Transform)]


def _arrays(variables: list[Any]) -> dict[int, tuple[Any, Any]]:
    return {id(v): (v, np.array(ops.convert_to_numpy(v))) for v in variables}


def _empty_new(model: Any, known: dict[int, Any]) -> None:
    """Reset the metrics whose variables this evaluation made."""
    for metric in model.metrics:
        if any(id(variable) not in known for variable in metric.variables):
            metric.reset_state()

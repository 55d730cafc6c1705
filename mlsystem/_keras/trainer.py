"""The private names of Keras for `fit` and `evaluate`: hooks, epoch iterators, losses and metrics.

All of them exist in Keras 3.11. The import of mlsystem fails without these:

- `CompileLoss`, `CompileMetrics`: reads what users give as `loss=` and `metrics=`.
- `Model._compute_loss`: calls a user's `compute_loss`, which may or may not take `training`.
- `EpochIterator` with `_get_iterator`, `_enumerate_iterator`, `catch_stop_iteration`: the batches
  of an epoch, so that a checkpoint knows how many were read.
- `Model._symbolic_build`: Keras' trainer calls it before training, where mlsystem sets up. The
  trainer of TensorFlow, and of JAX since 3.16, calls `_maybe_symbolic_build`. If neither is called,
  the first step raises `Changed`.
- `Model._get_metrics_result_or_logs`: the logs of an epoch.
- `Model._purge_model_variables` (JAX): Keras' trainer takes the values from the variables, and
  mlsystem does not let it.

Without these, what needs them raises `Changed` or an `AttributeError`:

- `Model._compile_loss`, `_compile_metrics`, `_loss_tracker`, `_metrics`: the loss and the metrics
  of `compile`, the mean loss, and the metrics in attributes.
- `Optimizer._trainable_variables`, `_learning_rate`: the weights that an optimizer was built for,
  and its schedule.
- `CallbackList._async_train`, `_async_test`, `_futures`: callbacks are called in turn on torch on a
  CPU, and have all been called before a validation inside an epoch.
- `EpochIterator._epoch_iterator`: the groups of batches on torch.
- `JAXEpochIterator` in `keras.src.backend.jax.trainer`: the batches of `predict`, where several
  devices share them.

What happens without these differs:

- `CompileLoss._user_loss`: tells Keras' own `model.loss = ...` in `compile` from a user's, which is
  refused. Without it, `compile(loss=...)` is refused. Errors in a loss also name it by this.
- `Metric._direction`: whether `mode="auto"` of a callback means more or less. Without it, the
  callback decides by the name.
- `Model._eval_epoch_iterator`: `fit` keeps the iterator of its validation set there. Without it,
  validation inside `fit` fails.
- `Model._jax_state` (JAX): Keras sets it at each batch. Under another name, a step takes longer.
- `Model._post_build` (torch): registers weights as torch parameters. Without it, torch registers
  them when it is asked for parameters.
"""

import contextlib
import importlib
import itertools
import warnings
from collections.abc import Callable, Iterator
from functools import partial
from typing import Any

import keras

from mlsystem._keras.lookup import attribute, check, needed

with needed():
    from keras.src.trainers.compile_utils import CompileLoss as CompileLoss
    from keras.src.trainers.compile_utils import CompileMetrics as CompileMetrics
    from keras.src.trainers.epoch_iterator import EpochIterator

    compute_loss = keras.Model._compute_loss  # a model's own, which may or may not name `training`

check(EpochIterator, "__next__", "_enumerate_iterator", "_get_iterator", "catch_stop_iteration")
check(keras.Model, "_symbolic_build", "_get_metrics_result_or_logs")

# The loss and metrics given to `compile`, as Keras calls them; None of a layer, or without any.
compile_loss = partial(attribute, "_compile_loss", of=keras.Model)
compile_metrics = partial(attribute, "_compile_metrics", of=keras.Model)
loss_tracker = partial(attribute, "_loss_tracker")  # behind the log `loss`
own_metrics = partial(attribute, "_metrics")  # those set as attributes of a model


def given_loss(model: Any) -> Any:
    """Return the loss given to a model's `compile`, as it was given; None without one."""
    return getattr(getattr(model, "_compile_loss", None), "_user_loss", None)


def loss_name(loss: Any) -> str:
    """Return the name of a loss that was given to `compile`. Empty for several in a structure."""
    given = getattr(loss, "_user_loss", loss)
    name = given if isinstance(given, str) else getattr(given, "__name__", None)
    return str(name or getattr(given, "name", ""))


def direction(metric: Any) -> str | None:
    """Return whether a metric is better "up" or "down"; None if it does not say."""
    return getattr(metric, "_direction", None)


def optimized_weights(optimizer: Any) -> list[Any]:
    """Return the weights that an optimizer was built for."""
    return list(attribute("_trainable_variables", _inner(optimizer)))


def schedule(optimizer: Any) -> Any:
    """Return the schedule of an optimizer's learning rate; None if it has none."""
    rate = attribute("_learning_rate", _inner(optimizer))
    return rate if isinstance(rate, keras.optimizers.schedules.LearningRateSchedule) else None


def _inner(optimizer: Any) -> Any:
    return getattr(optimizer, "inner_optimizer", optimizer)  # of one that scales the loss


def made_function(model: Any, step: str) -> Any:
    """Return the function that Keras' own trainer makes of the `train` or `test` step."""
    name = f"{step}_function"
    before = getattr(model, name)
    getattr(keras.Model, f"make_{name}")(model, force=True)  # leaves it as the model's own
    made = getattr(model, name)
    setattr(model, name, before)
    return made


def call_in_turn(callbacks: Any) -> None:
    """Have a list of callbacks call them when a batch ends, not in a thread beside the next."""
    for name in ("_async_train", "_async_test"):
        attribute(name, callbacks)  # to set another one would change nothing
        setattr(callbacks, name, False)


def wait_for(callbacks: Any) -> None:
    """Wait until a list of callbacks has told all of them of the batches so far."""
    for future in list(attribute("_futures", callbacks)):
        future.result()


def set_evaluated(model: Any, epoch: Any) -> None:
    """Set the iterator that `fit` keeps for its evaluations. Where it is None, `fit` makes one."""
    model._eval_epoch_iterator = epoch


def check_jax_trainer() -> None:
    """Refuse a Keras whose JAX trainer does not take the values from the variables as known."""
    check(keras.Model, "_purge_model_variables")


class Hooks(keras.Model):
    """The methods that Keras' trainer calls. `_mlsystem` says what happens: see `_learner.py`."""

    _mlsystem: Any

    def _symbolic_build(self, iterator: Any = None, data_batch: Any = None) -> None:
        call = self._mlsystem.call
        if call is None:  # a method of Keras that was called past ours
            super()._symbolic_build(iterator, data_batch)
            return
        if iterator is not None and not isinstance(iterator, _Followed):
            in_groups = type(iterator).__next__ is EpochIterator.__next__
            bases: list[type] = [_Followed, *([_Groups] if in_groups else []), type(iterator)]
            iterator.__class__ = type("Followed", tuple(bases), {})
            call.prepare(iterator)
        call.ready(_examples(iterator) if data_batch is None else [data_batch])
        if iterator is not None:
            call.start(iterator)

    # TensorFlow's trainer asks under this name.
    _maybe_symbolic_build = _symbolic_build

    def _purge_model_variables(self, *args: Any, **kwargs: Any) -> None:
        """Keras' JAX trainer takes the values from the variables for an epoch; we leave them."""

    def _get_metrics_result_or_logs(self, logs: dict[str, Any]) -> dict[str, Any]:
        found: dict[str, Any] = self._mlsystem.epoch_logs(logs)
        return found


def draws_first(model: Any) -> bool:
    """Return whether Keras would draw a batch before training, to build what is unbuilt."""
    parts = [model, *model.layers, compile_loss(model), compile_metrics(model)]
    return not all(part.built for part in parts if part is not None)


def epoch_logs(model: Any, logs: dict[str, Any]) -> dict[str, Any]:
    """Return the logs of an epoch as Keras makes them, given those of its last step."""
    found: dict[str, Any] = keras.Model._get_metrics_result_or_logs(model, logs)
    return found


def register_weights(model: Any) -> None:
    """Let torch see the weights of a model that was built symbolically."""
    if hasattr(model, "_post_build"):
        model._post_build()


class _Followed(EpochIterator):
    """Lets a `position` know of each iterator over the data, and of each step it is read for."""

    position: Any = None
    loop: Any = None  # groups steps, and makes the batches for them
    steps_per_execution: int

    def _get_iterator(self) -> Any:
        if self.position is not None:
            self.position.make()
        if self.loop is not None:
            return self.loop.batches()
        # Keras 3.16 would stack the batches of an execution on JAX; our step does so itself.
        steps, self.steps_per_execution = self.steps_per_execution, 1
        try:
            if getattr(self.data_adapter, "is_placed", False):  # on the devices, without Keras
                return self.data_adapter.get_global_iterator()
            return super()._get_iterator()
        finally:
            self.steps_per_execution = steps

    def _enumerate_iterator(self) -> Any:
        steps = super()._enumerate_iterator()
        if self.loop is not None:
            steps = self.loop.grouped(steps)
        return steps if self.position is None else self.position.follow(steps)


@contextlib.contextmanager
def global_batches(adapter_of: Callable[[Any], Any]) -> Iterator[None]:
    """Let Keras' `predict` on JAX read global batches, which another data adapter makes."""
    trainer = importlib.import_module("keras.src.backend.jax.trainer")
    kept: Any = attribute("JAXEpochIterator", trainer)

    class Global(kept):
        def _get_iterator(self) -> Any:
            return adapter_of(self.data_adapter).get_global_iterator()

    trainer.JAXEpochIterator = Global  # type: ignore[attr-defined]
    try:
        yield
    finally:
        trainer.JAXEpochIterator = kept  # type: ignore[attr-defined]


class _Groups(EpochIterator):
    """The iterator of Keras' torch trainer: groups of batches. The last group may be short.

    Keras' own iterator warns at a short group that the data ran out in the middle of an epoch.
    """

    def __next__(self) -> Any:
        first, last, batches = next(self._epoch_iterator)
        if group := list(itertools.islice(batches, self.steps_per_execution)):
            return first, last, group
        with self.catch_stop_iteration():
            raise StopIteration
        raise StopIteration


def reads_groups(epoch: Any) -> bool:
    """Return whether the batches of a step are read before callbacks hear that it begins."""
    return isinstance(epoch, _Groups)


def _examples(iterator: Any) -> Iterator[Any]:
    """Yield one batch of each structure; drawn when they are read."""
    if hasattr(iterator.data_adapter, "examples"):
        yield from iterator.data_adapter.examples()
        return
    iterator.steps_per_execution, steps = 1, iterator.steps_per_execution  # draws no more than one
    for _, _, batches in iterator:  # lists of them, or an iterator
        iterator.steps_per_execution = steps
        yield from itertools.islice(batches, 1)
        return


def first_batches(count: int, **data: Any) -> list[Any]:
    """Return the first batches of anything that `fit` takes, as arrays; fewer if it has fewer."""
    epoch = EpochIterator(**data, steps_per_epoch=count)
    steps = epoch.data_adapter.num_batches
    epoch.steps_per_epoch = count if steps is None else min(count, steps)
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", "Your input ran out of data")
        return [batch for _, _, batches in epoch for batch in batches]

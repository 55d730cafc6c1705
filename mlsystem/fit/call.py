"""`Call`: run one `fit` or `evaluate`, with setup, callbacks and Keras' loop."""

import contextlib
import functools
import inspect
import threading
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, replace
from typing import Any

import keras

from mlsystem import _keras
from mlsystem._learner import Learner
from mlsystem._signature import bind
from mlsystem.data.transforms import Transform
from mlsystem.engine import engine
from mlsystem.engine.distribution import agreement, first_process, rows
from mlsystem.fit import loop, validation_preview
from mlsystem.fit.callback_list import CallbackList, check
from mlsystem.fit.fit_options import FitOptions
from mlsystem.preparation import recompilation, setup

# Where Keras keeps the compiled form of each step.
_FUNCTIONS = {"train_step": "train_function", "test_step": "test_function"}


@dataclass(frozen=True)
class Call:
    """The state of one call of Keras' trainer. A call inside another call has its own `Call`.

    Attributes:
        learner: the learner of the model.
        step: the step that it runs: `train_step` or `test_step`.
        transform: the transform that the step applies to its batch first.
        arguments: our arguments of `fit`, also for a validation inside `fit`.
        callbacks: the list of callbacks, if this call makes it.
        thread: the id of the thread in which it runs.
        shows: whether it prints, as `verbose` says.
    """

    learner: Learner
    step: str
    transform: Transform | None = None
    arguments: FitOptions | None = None
    callbacks: CallbackList | None = None
    thread: int = 0
    shows: bool = False

    @property
    def validation_names(self) -> list[str]:
        """The names of the validation sets of the `fit` in progress."""
        validation = self.arguments.validation if self.arguments else None
        return [] if validation is None else validation.names

    def prepare(self, epoch: Any) -> None:
        """Prepare Keras' iterator over an epoch, before it is read.

        Shorten the epoch of a fast run. Shuffle arrays in our order in each epoch, for a system and
        for a call that a checkpoint follows.
        """
        rows.divide(epoch, training=self.step == "train_step")
        if self.arguments is not None and (most := self.arguments.most):
            epoch.steps_per_epoch = min(most, epoch.num_batches or most)
        followed = self.callbacks is not None and self.callbacks.is_followed()
        if followed or self.learner.shuffles_anew:
            engine.reshuffle(epoch)

    def ready(self, batches: Iterable[Any]) -> None:
        """Prepare the model for its step, given one batch of each structure of the data.

        This happens before anything else.
        """
        with engine.replicas.alone():
            setup.ready(self.learner, batches)

    def start(self, epoch: Any) -> None:
        """Rehearse validation and start the callbacks, once the model is ready."""
        if self.arguments is not None:
            self.arguments.epoch = epoch
            if self.step == "train_step":
                with engine.replicas.alone():
                    _rehearse_validation(self.learner, self.arguments)
        if self.step == "train_step":
            loop.check(self, epoch)
        if self.callbacks is not None:
            engine.replicas.share(self.learner.state_variables())
            self.callbacks.start(self.learner.model, epoch)
        if self.step == "train_step":
            epoch.loop = loop.made(self, epoch)


@contextlib.contextmanager
def running(
    learner: Learner, step: str, transform: Transform | None = None, **parts: Any
) -> Iterator[Call]:
    """Set the `Call` of the model in this context. A call inside another shares its transform."""
    outer: Call | None = learner.call
    if outer is None:
        call = Call(learner, step, transform, thread=threading.get_ident())
    else:
        shared = outer.transform if transform is None else transform
        call = replace(outer, step=step, transform=shared, callbacks=None)
    learner.call = replace(call, **parts)
    try:
        _see_transform(learner, step, learner.call.transform)
        learner.ensure_compiled()
        yield learner.call
    finally:
        learner.call = outer


def _see_transform(learner: Learner, step: str, transform: Transform | None) -> None:
    """Drop a compiled step that holds another transform."""
    if learner.compiled.transforms.get(step) is not transform:
        learner.compiled.transforms[step] = transform
        learner.compiled.rehearsed.pop(step, None)
        setattr(learner.model, _FUNCTIONS[step], None)


def _rehearse_validation(learner: Learner, arguments: FitOptions) -> None:
    """Rehearse the evaluation of validation data, so that errors appear before training."""
    cls = type(learner.model)
    is_ours = cls.test_step.__module__.startswith("mlsystem.")
    is_default = _evaluate_of_keras(learner).__func__ is keras.Model.evaluate
    if is_ours and is_default and getattr(cls.evaluate, "_is_default", False):
        for name, batches in arguments.previews.items():
            with running(learner, "test_step"):
                where = f" of {validation_preview.named(name).replace('The', 'the', 1)}"
                setup.rehearse_all(learner, setup.checked(learner, batches), where)
    if arguments.validation is not None:
        arguments.validation.start(learner.model, functools.partial(evaluate, learner))


def step_memory(learner: Learner, batch: Any) -> int | None:
    """Return the bytes that the compiled training step on a batch needs. See `Engine`.

    The step is rehearsed first, as `fit` does, and is not run.
    """
    with running(learner, "train_step") as call:
        call.ready([batch])
        return engine.step_memory(learner.model, batch)


def evaluate(learner: Learner, **given: Any) -> Any:
    """Call the `evaluate` below ours, on data as Keras takes them."""
    method = _evaluate_of_keras(learner)
    return run(learner, "test_step", method, bind(method, **given))


def _evaluate_of_keras(learner: Learner) -> Any:
    """Return Keras' `evaluate`, or that of a mixin of Keras."""
    return super(_keras.Hooks, learner.model).evaluate


def run(
    learner: Learner,
    step: str,
    method: Any,
    call: inspect.BoundArguments,
    transform: Transform | None = None,
    arguments: FitOptions | None = None,
) -> Any:
    """Call a method of Keras' trainer, which runs the step, with our list of callbacks.

    Args:
        learner: the learner of the model.
        step: the step that the method runs.
        method: the method of Keras' trainer, bound to the model.
        call: its arguments, from `_signature.bind`.
        transform: the transform that the step applies to its batch.
        arguments: the arguments of `fit` that Keras does not have.
    """
    given = call.arguments
    first_process.quiet(given)
    _check_thread(learner)
    engine.random_state()  # raises an error if the backend cannot train
    engine.check_devices(learner.model)
    if learner.call is None:
        recompilation.see(learner)
        if engine.replicas.count > 1 and "callbacks" in given:
            agreement.on_random_state()  # before the first batch is read
    setup.check_given(learner, *(given.get(name) for name in ("x", "y", "sample_weight")))
    parts: dict[str, Any] = {} if arguments is None else {"arguments": arguments}
    if learner.call is None:
        parts["shows"] = given.get("verbose", 0) != 0
    with running(learner, step, transform, **parts):
        callbacks = _callbacks(given, arguments)
        learner.call = replace(learner.call, callbacks=callbacks)
        try:
            return method.__func__(*call.args, **call.kwargs)
        finally:
            if callbacks is not None:
                callbacks.close()


def _check_thread(learner: Learner) -> None:
    """Raise an error if another thread trains or evaluates the model."""
    if learner.call is not None and learner.call.thread != threading.get_ident():
        raise RuntimeError(
            f"'{learner.name}' is being trained or evaluated in another thread. Wait for it to "
            "end, or make a system for each thread."
        )


def _callbacks(given: dict[str, Any], arguments: FitOptions | None) -> CallbackList | None:
    """Put our list of callbacks into the arguments. Return None if they hold a `CallbackList`."""
    found = given.get("callbacks")
    if "callbacks" not in given or isinstance(found, keras.callbacks.CallbackList):
        return None
    check(found)
    ours = (
        CallbackList(given, arguments.resume, arguments.quiet)
        if arguments is not None
        else CallbackList(given)
    )
    given["callbacks"] = ours
    return ours

"""One call of `fit`, `evaluate` or their kin, from what it was given to its last step."""

import contextlib
import functools
import inspect
import threading
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, replace
from typing import Any

import keras

from mlsystem._learner import Learner
from mlsystem._signature import bind
from mlsystem.data.transforms import Transform
from mlsystem.engine import engine
from mlsystem.fit import data_preview
from mlsystem.fit.arguments import FitArguments
from mlsystem.fit.callback_list import CallbackList, check
from mlsystem.preparation import fingerprint, setup

# Where Keras keeps the compiled form of each step.
_FUNCTIONS = {"train_step": "train_function", "test_step": "test_function"}


@dataclass(frozen=True)
class Call:
    """What one call of Keras' trainer works on. A call inside another is a `Call` of its own.

    Attributes:
        learner: that of the model.
        step: the step that it runs: `train_step` or `test_step`.
        transform: what the step does to its batch first.
        arguments: what `fit` takes beside Keras' arguments, also of a validation inside it.
        callbacks: the list of callbacks, where this call makes it.
        thread: the thread in which it runs.
    """

    learner: Learner
    step: str
    transform: Transform | None = None
    arguments: FitArguments | None = None
    callbacks: CallbackList | None = None
    thread: int = 0

    @property
    def validation_names(self) -> list[str]:
        """The names of the sets that the `fit` in progress validates on."""
        validation = self.arguments.validation if self.arguments else None
        return [] if validation is None else validation.names

    def prepare(self, epoch: Any) -> None:
        """Called with Keras' iterator over an epoch, before it is read.

        Cuts a trial run short, and has the order of arrays come from where we want it.
        """
        if self.arguments is not None and (most := self.arguments.most):
            epoch.steps_per_epoch = min(most, epoch.num_batches or most)
        followed = self.callbacks is not None and self.callbacks.is_followed()
        if followed or self.learner.shuffles_anew:
            engine.reshuffle(epoch)

    def ready(self, batches: Iterable[Any]) -> None:
        """Called with one batch of each structure of the data, before anything else happens."""
        setup.ready(self.learner, batches)

    def start(self, epoch: Any) -> None:
        """Called when the model is ready: callbacks learn what they are called for."""
        if self.arguments is not None:
            self.arguments.epoch = epoch
            if self.step == "train_step":
                _rehearse_validation(self.learner, self.arguments)
        if self.callbacks is not None:
            self.callbacks.start(self.learner.model, epoch)


@contextlib.contextmanager
def running(
    learner: Learner, step: str, transform: Transform | None = None, **parts: Any
) -> Iterator[Call]:
    """The context of a call, or of one inside another, whose transform it then shares."""
    outer: Call | None = learner.call
    if outer is None:
        call = Call(learner, step, transform, thread=threading.get_ident())
    else:
        shared = outer.transform if transform is None else transform
        call = replace(outer, step=step, transform=shared, callbacks=None)
    learner.call = replace(call, **parts)
    _see_transform(learner, step, learner.call.transform)
    try:
        learner.ensure_compiled()
        yield learner.call
    finally:
        learner.call = outer


def _see_transform(learner: Learner, step: str, transform: Transform | None) -> None:
    """Forgets a compiled step that holds another transform."""
    if learner.compiled.transforms.get(step) is not transform:
        learner.compiled.transforms[step] = transform
        learner.compiled.rehearsed.pop(step, None)
        setattr(learner.model, _FUNCTIONS[step], None)


def _rehearse_validation(learner: Learner, arguments: FitArguments) -> None:
    """Has what is wrong with validation data come up before anything is trained."""
    cls = type(learner.model)
    is_ours = cls.test_step.__module__.startswith("mlsystem.")
    if is_ours and getattr(cls.evaluate, "_is_default", False):
        for name, batches in arguments.previews.items():
            with running(learner, "test_step"):
                where = f" of {data_preview.named(name).replace('The', 'the', 1)}"
                setup.rehearse_all(learner, setup.checked(learner, batches), where)
    if arguments.validation is not None:
        arguments.validation.start(learner.model, functools.partial(evaluate, learner))


def evaluate(learner: Learner, **given: Any) -> Any:
    """Calls Keras' own `evaluate`, on data as Keras takes them."""
    method = keras.Model.evaluate.__get__(learner.model)
    return run(learner, "test_step", method, bind(method, **given))


def run(
    learner: Learner,
    step: str,
    method: Any,
    call: inspect.BoundArguments,
    transform: Transform | None = None,
    arguments: FitArguments | None = None,
) -> Any:
    """Calls a method of Keras' trainer, which runs the step, with our list of callbacks.

    Args:
        learner: that of the model.
        step: the step that the method runs.
        method: the method of Keras' trainer, bound to the model.
        call: its arguments, as `_signature.bind` gives them.
        transform: what the step does to its batch.
        arguments: those of `fit` that are not Keras'.
    """
    given = call.arguments
    _check_thread(learner)
    engine.random_state()  # a backend that cannot train says so here
    if learner.call is None:
        fingerprint.see(learner)
    setup.check_given(learner, *(given.get(name) for name in ("x", "y", "sample_weight")))
    parts = {} if arguments is None else {"arguments": arguments}
    with running(learner, step, transform, **parts):
        callbacks = _callbacks(given, arguments)
        learner.call = replace(learner.call, callbacks=callbacks)
        try:
            return method.__func__(*call.args, **call.kwargs)
        finally:
            if callbacks is not None:
                callbacks.close()


def _check_thread(learner: Learner) -> None:
    """Refuses a call while another thread trains or evaluates."""
    if learner.call is not None and learner.call.thread != threading.get_ident():
        raise RuntimeError(
            f"'{learner.name}' is being trained or evaluated in another thread. Wait for it to "
            "end, or make a system for each thread."
        )


def _callbacks(given: dict[str, Any], arguments: FitArguments | None) -> CallbackList | None:
    """Puts our list of callbacks into the arguments; none in the place of a list of Keras'."""
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

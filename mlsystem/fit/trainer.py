"""What a learner shows to Keras' trainer: its state, and `fit`, `evaluate` and their kin."""

import inspect
import threading
from collections.abc import Iterable
from typing import Any

import keras

from mlsystem import _keras, engine
from mlsystem._checks import is_count
from mlsystem._signature import bind
from mlsystem.callbacks.gradient_norms import unwatched
from mlsystem.fit import data_arguments
from mlsystem.fit.arguments import Plan
from mlsystem.fit.callback_list import CallbackList, check
from mlsystem.fit.validation import Validation
from mlsystem.losses.found import Taken
from mlsystem.losses.reduction import Loss
from mlsystem.metrics.running_means import Logs
from mlsystem.preparation import fingerprint, lightning_hints, setup
from mlsystem.routing.update_schedule import Turn


class Run:
    """What a learner keeps between steps. A plain object: Keras tracks nothing in it."""

    def __init__(self) -> None:
        self.logs = Logs()
        self.key = ""
        self.optimizer: Any = None  # of the system that trains the model
        self.is_unnamed = False  # by its user, and so named after its attribute
        self.is_ready = False
        self.purpose = "train_step"
        self.phases: list[list[str]] = []
        self.turns: dict[str, Turn] = {}
        self.when: dict[str, Any] = {}
        self.gate: Any = None  # the condition `when` of the update in progress
        self.flagged: list[Any] = []
        self.flags: tuple[bool, ...] = ()
        self.skipped: dict[str, int] = {}
        self.optimized: dict[str, list[int]] = {}
        self.losses: dict[str, Any] = {}
        self.metrics: dict[str, Any] = {}
        self.weighted: set[str] = set()
        self.direct: dict[str, Any] | None = None
        self.nested: dict[str, Any] | None = None
        self.found: dict[str, Loss] = {}
        self.evaluated: dict[str, None] = {}  # the logs of losses that an evaluation adds up
        self.rehearsed: dict[str, set[str]] = {}  # the shapes, by step
        self.warned: set[str] = set()
        self.told: set[str] = set()  # the names that were looked at for what nobody reads
        self.reached: set[int] = set()  # the weights, by id, that some loss was found to reach
        self.due: frozenset[str] | None = None
        self.batches = 0
        self.shown: dict[str, Any] = {}
        self.members: dict[str, Any] | None = None
        self.given: dict[str, Any] = {}
        self.jit_compile: Any = "auto"
        self.changes = 0  # of numbers in attributes
        self.made_from: Any = None  # what the compiled steps hold
        self.restless: set[Any] = set()  # what of that changes by itself
        self.hasty: dict[Any, int] = {}  # the calls in a row before which it has changed
        self.symbols: Any = None
        self.plan: Plan | None = None
        self.taken: Taken | None = None
        self.loss_names: list[str] = []
        self.parts: list[str] = []  # of those losses
        self.callbacks: Any = None
        self.data: Any = None  # what the learner's own method gave
        self.transform: Any = None  # what the step does to its batch
        self.in_use = False
        self.thread = 0  # in which it is in use
        self.made_for: dict[str, Any] = {}  # the transform in the compiled step

    def reset(self) -> None:
        """Starts over with a new configuration."""
        self.is_ready = False
        self.direct = self.nested = self.members = None
        self.loss_names, self.parts = [], []
        for known in (self.rehearsed, self.warned, self.reached):
            known.clear()


class Trainer(_keras.Hooks):
    """The part of a learner that Keras' `fit` talks to."""

    _run: Run
    optimizers: Any
    train_function: Any
    test_function: Any

    def compile(self, *args: Any, **kwargs: Any) -> None:
        """Configures training. See `keras.Model.compile`."""
        jit_compile = kwargs.get("jit_compile", "auto")
        if not isinstance(jit_compile, bool) and jit_compile != "auto":
            raise ValueError(
                f"compile got jit_compile={jit_compile!r}; give True, False or 'auto'."
            )
        if not is_count(steps := kwargs.get("steps_per_execution", 1)):
            raise ValueError(
                f"compile got steps_per_execution={steps!r}; give a whole number from 1."
            )
        if hasattr(self, "_run"):  # Keras resolves "auto" to False on torch
            self._run.jit_compile = jit_compile
        super().compile(*args, **kwargs)

    def _state_variables(self) -> list[Any]:
        """All variables that a step may read or assign, each once."""
        optimizer = getattr(self, "optimizer", None)
        variables = [
            *self.variables,
            *(optimizer.variables if optimizer is not None else []),
            *self.metrics_variables,
            *(self._run.transform.variables if self._run.transform is not None else []),
        ]
        return list({id(v): v for v in variables}.values())

    def _tested_variables(self) -> list[Any]:
        """Those that a test step may read or assign: of optimizers only counts and rates."""
        optimizer = getattr(self, "optimizer", None)
        held = optimizer.variables if optimizer is not None else []
        slots = {id(variable) for variable in held if variable.shape}
        return [v for v in self._state_variables() if id(v) not in slots]

    def _counted_variables(self) -> list[Any]:
        """The variables of all that counts what happens in an update."""
        return list(self.metrics_variables)

    def _batches_seen(self) -> Any:
        """The number of batches before this one."""
        return self.optimizer.iterations

    def _ready(self, batches: Iterable[Any]) -> None:
        """Readies everything and rehearses the step, before training starts."""
        setup.ready(self, batches)

    def _check_readied(self, step: str) -> None:
        """Refuses a Keras whose trainer has not called `_ready` before it takes a step."""
        if self._run.in_use and step == self._run.purpose and step not in self._run.rehearsed:
            raise _keras.Changed("call of `_symbolic_build` before a step in its trainer")

    def _prepare(self, epoch: Any) -> None:
        """Cuts a trial run short, and has the order of arrays come from where we want it."""
        if self._run.plan is not None and (most := self._run.plan.most):
            epoch.steps_per_epoch = min(most, epoch.num_batches or most)
        if self._shuffles_anew():
            engine.chosen.reshuffle(epoch)

    def _shuffles_anew(self) -> bool:
        """Whether that is where a checkpoint finds it; else it is Keras'."""
        return self._run.callbacks is not None and self._run.callbacks.is_followed()

    def _start(self, epoch: Any) -> None:
        """Lets the callbacks of a `fit` or `evaluate` know what they are called for."""
        if self._run.plan is not None:
            self._run.plan.start(self, epoch)
        callbacks, self._run.callbacks = self._run.callbacks, None
        if callbacks is not None:
            callbacks.start(self, epoch)

    def fit(
        self,
        x: Any = None,
        y: Any = None,
        *args: Any,
        resume: Any = None,
        validation_every: int | None = None,
        fast_run: bool | int = False,
        overfit: int | None = None,
        max_time: Any = None,
        **kwargs: Any,
    ) -> Any:
        """Trains for a number of epochs. See `keras.Model.fit`; `compile` may be left out.

        `validation_data` may also be a dict of several sets, `{name: what Keras takes}`: their logs
        are `val_NAME_loss` and so on.

        Args:
            x: as in Keras, an `ml.MLData` or `ml.Streams`; by default what the method `data` of
                the system returns. `y` and the others are as in Keras.
            y: the targets.
            args: the other arguments of `keras.Model.fit`.
            resume: folder of `ml.callbacks.Checkpoint`, from whose newest file training goes on at
                the very batch it stopped at, up to `epochs`; from the beginning where there is none
                yet. Or one such file. Give the same data, batch size and callbacks as before. A
                warning says what differs in the number of batches, in the shapes of arrays, or in
                their first rows. `initial_epoch` counts where there is none yet.
            validation_every: validates after every so many batches, counted over the whole `fit`,
                in place of at the end of each epoch. The training is the same to the last bit as
                without. The logs of an epoch hold the latest `val_` numbers measured in it;
                `history.validations` holds all of them, with the number of batches as `batch`.
            fast_run: True, or a number of batches: a trial run of one epoch with one batch, or so
                many, to train and to validate on. The files of Keras' callbacks and of `Checkpoint`
                go to a folder that is then removed, and `resume` is not looked at.
            overfit: number of the first batches that make up every epoch: the same ones, in one
                order, and in the place of all validation data too. They are kept in memory.
            max_time: seconds, or a `datetime.timedelta`, from the call on. When it is over,
                training ends after the batch, as when a callback ends it, and `resume` goes on
                from there.
            kwargs: the other arguments of `keras.Model.fit`.

        Raises:
            ValueError: before training starts, for what does not fit together, with what to do.
        """
        lightning_hints.check(self)
        plan = Plan(resume, validation_every, fast_run, overfit, max_time)
        call = bind(super().fit, x, y, *args, **kwargs)
        transform = data_arguments.for_fit(self, call.arguments)
        plan.say(resume, call.arguments["verbose"])
        with plan.applied(call.arguments):
            self._run.plan = plan
            try:
                return self._run_step("train_step", super().fit, call, transform)
            finally:
                self._run.plan = None
                if hasattr(self, "train_function"):  # a backend that cannot train has none
                    self.train_function = unwatched(self.train_function)

    def evaluate(self, x: Any = None, y: Any = None, *args: Any, **kwargs: Any) -> Any:
        """The losses and metrics on a data set. See `keras.Model.evaluate`.

        Args:
            x: as in Keras, an `ml.MLData` or `ml.Streams`; by default what the method `data` of
                the system returns. Of an MLData the test data, or else the validation data; the
                logs of several sets are named NAME_LOG.
            y: as in Keras; so are the others.
            args: the other arguments of `keras.Model.evaluate`.
            kwargs: the other arguments of `keras.Model.evaluate`.
        """
        if isinstance(x, Validation):  # by Keras' `fit`, at the end of an epoch
            return x.at_end_of_epoch(self, kwargs["callbacks"])
        call, results = bind(super().evaluate, x, y, *args, **kwargs), {}
        for name, (given, transform) in data_arguments.for_evaluate(self, call.arguments).items():
            call.arguments.update(given)
            results[name] = self._run_step("test_step", super().evaluate, call, transform)
        return data_arguments.together(results)

    # One of a subclass may take other steps than `test_step`, which is then not rehearsed.
    evaluate._is_default = True  # type: ignore[attr-defined]

    def _evaluate(self, *args: Any, **kwargs: Any) -> Any:
        return self._run_step(
            "test_step", super().evaluate, bind(super().evaluate, *args, **kwargs)
        )

    def train_on_batch(self, x: Any = None, y: Any = None, *args: Any, **kwargs: Any) -> Any:
        """One training step on one batch. See `keras.Model.train_on_batch`."""
        method = super().train_on_batch
        return self._run_step("train_step", method, bind(method, x, y, *args, **kwargs))

    def test_on_batch(self, x: Any = None, y: Any = None, *args: Any, **kwargs: Any) -> Any:
        """One step of `evaluate` on one batch. See `keras.Model.test_on_batch`."""
        method = super().test_on_batch
        return self._run_step("test_step", method, bind(method, x, y, *args, **kwargs))

    def predict(self, x: Any = None, *args: Any, **kwargs: Any) -> Any:
        """What the model returns, batch by batch. See `keras.Model.predict`.

        Args:
            x: as in Keras, an `ml.MLData` (its test data) or `ml.Streams`.
            args: the other arguments of `keras.Model.predict`.
            kwargs: the other arguments of `keras.Model.predict`.
        """
        call = bind(super().predict, x, *args, **kwargs)
        data_arguments.for_predict(self, call.arguments)
        with engine.chosen.predict_scope(self):
            return super().predict(*call.args[1:], **call.kwargs)

    def predict_on_batch(self, x: Any) -> Any:
        """What the model returns for one batch. See `keras.Model.predict_on_batch`."""
        with engine.chosen.predict_scope(self):
            return super().predict_on_batch(x)

    def get_compile_config(self) -> Any:
        """What `compile` was given, as Keras saves it."""
        config = _keras.portable(super().get_compile_config())
        # In which "auto" is resolved for this backend.
        return config and {**config, "jit_compile": self._run.jit_compile}

    def _run_step(
        self, step: str, method: Any, call: inspect.BoundArguments, transform: Any = None
    ) -> Any:
        """Calls a method of Keras' trainer, which runs the step, with our list of callbacks."""
        given = call.arguments
        self._check_thread()
        if not self._run.in_use:
            fingerprint.see(self)
        parts = [given.get(name) for name in ("x", "y", "sample_weight")]
        with setup.purpose(self, step, *parts), data_arguments.used(self, step, transform):
            ours = self._callbacks(given)
            try:
                return method.__func__(*call.args, **call.kwargs)
            finally:
                if ours is not None:
                    ours.close()

    def _check_thread(self) -> None:
        """Refuses a call while another thread trains or evaluates."""
        run, this = self._run, threading.get_ident()
        if not run.in_use:
            run.thread = this
        elif run.thread != this:
            raise RuntimeError(
                f"'{self.name}' is being trained or evaluated in another thread. Wait for it to "
                "end, or make a system for each thread."
            )

    def _callbacks(self, given: dict[str, Any]) -> CallbackList | None:
        """Puts our list of callbacks into the arguments; none in the place of a list of Keras'."""
        found = given.get("callbacks")
        if "callbacks" not in given or isinstance(found, keras.callbacks.CallbackList):
            return None
        check(found)
        plan = self._run.plan if "epochs" in given else None
        ours = CallbackList(given, plan.resume, plan.quiet) if plan else CallbackList(given)
        given["callbacks"] = self._run.callbacks = ours
        return ours

"""What a learner shows to Keras' trainer: its state, and `fit`, `evaluate` and their kin."""

from collections.abc import Iterable
from typing import Any

import keras

from mlsystem import _keras, engine, ready
from mlsystem.callback_list import CallbackList, check
from mlsystem.gradient_norms import unwatched
from mlsystem.logs import Logs
from mlsystem.resume import Resume, find
from mlsystem.signature import bind
from mlsystem.step import Taken


class Run:
    """What a learner keeps between steps. A plain object: Keras tracks nothing in it."""

    def __init__(self) -> None:
        self.logs = Logs()
        self.key = ""
        self.is_ready = False
        self.purpose = "train_step"
        self.phases: list[list[str]] = []
        self.every: dict[str, int] = {}
        self.losses: dict[str, Any] = {}
        self.metrics: dict[str, Any] = {}
        self.weighted: set[str] = set()
        self.direct: dict[str, Any] | None = None
        self.terms: dict[str, dict[str, Any]] = {}
        self.rehearsed: set[str] = set()
        self.warned: set[str] = set()
        self.due: frozenset[str] | None = None
        self.batches = 0
        self.shown: dict[str, Any] = {}
        self.members: dict[str, Any] | None = None
        self.given: dict[str, Any] = {}
        self.jit_compile: Any = "auto"
        self.changes = 0
        self.symbols: Any = None
        self.resume: Resume | None = None
        self.taken: Taken | None = None
        self.loss_names: list[str] = []
        self.callbacks: Any = None

    def reset(self) -> None:
        """Starts over with a new configuration."""
        self.is_ready = False
        self.direct = self.members = None
        self.loss_names = []
        self.rehearsed.clear()


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
        ]
        return list({id(v): v for v in variables}.values())

    def _gated_variables(self) -> list[Any]:
        """The variables that an update leaves as they are when its condition is false."""
        inner = [v for optimizer in self.optimizers.values() for v in optimizer.variables]
        return [*self.weights, *inner, *self.metrics_variables]

    def _batches_seen(self) -> Any:
        """The number of batches before this one."""
        return self.optimizer.iterations

    def _ready(self, batches: Iterable[Any]) -> None:
        """Readies everything and rehearses the step, before training starts."""
        ready.ready(self, batches)

    def _prepare(self, epoch: Any) -> None:
        """Has the order of arrays come from where a checkpoint finds it; else it is Keras'."""
        if self._run.callbacks is not None and self._run.callbacks.is_followed():
            engine.chosen.reshuffle(epoch)

    def _start(self, epoch: Any) -> None:
        """Lets the callbacks of a `fit` or `evaluate` know what they are called for."""
        callbacks, self._run.callbacks = self._run.callbacks, None
        if callbacks is not None:
            callbacks.start(self, epoch)

    def fit(
        self, x: Any = None, y: Any = None, *args: Any, resume: Any = None, **kwargs: Any
    ) -> Any:
        """Trains for a number of epochs. See `keras.Model.fit`; `compile` may be left out.

        Args:
            x: as in Keras; so are `y` and the others.
            y: the targets.
            args: the other arguments of `keras.Model.fit`.
            resume: folder of `ml.callbacks.Checkpoint`, from whose newest file training goes on at
                the very batch it stopped at, up to `epochs`; from the beginning where there is none
                yet. Or one such file. Give the same data, batch size and callbacks as before; the
                data themselves are not compared. `initial_epoch` counts where there is none yet.
            kwargs: the other arguments of `keras.Model.fit`.
        """
        self._run.resume = find(resume)
        if resume is not None and self._run.resume is None and kwargs.get("verbose", "auto") != 0:
            print(f"'{resume}' holds no checkpoint yet: training begins anew.")
        try:
            return self._run_step("train_step", super().fit, x, y, *args, **kwargs)
        finally:
            self._run.resume = None
            if hasattr(self, "train_function"):  # a backend that cannot train has none
                self.train_function = unwatched(self.train_function)

    def evaluate(self, x: Any = None, y: Any = None, *args: Any, **kwargs: Any) -> Any:
        """The losses and metrics on a data set. See `keras.Model.evaluate`."""
        return self._run_step("test_step", super().evaluate, x, y, *args, **kwargs)

    def train_on_batch(self, x: Any = None, y: Any = None, *args: Any, **kwargs: Any) -> Any:
        """One training step on one batch. See `keras.Model.train_on_batch`."""
        return self._run_step("train_step", super().train_on_batch, x, y, *args, **kwargs)

    def test_on_batch(self, x: Any = None, y: Any = None, *args: Any, **kwargs: Any) -> Any:
        """One step of `evaluate` on one batch. See `keras.Model.test_on_batch`."""
        return self._run_step("test_step", super().test_on_batch, x, y, *args, **kwargs)

    def predict(self, *args: Any, **kwargs: Any) -> Any:
        """What the model returns, batch by batch. See `keras.Model.predict`."""
        with engine.chosen.predict_scope(self):
            return super().predict(*args, **kwargs)

    def predict_on_batch(self, x: Any) -> Any:
        """What the model returns for one batch. See `keras.Model.predict_on_batch`."""
        with engine.chosen.predict_scope(self):
            return super().predict_on_batch(x)

    def get_compile_config(self) -> Any:
        """What `compile` was given, as Keras saves it."""
        config = _keras.portable(super().get_compile_config())
        # In which "auto" is resolved for this backend.
        return config and {**config, "jit_compile": self._run.jit_compile}

    def _run_step(self, step: str, method: Any, *args: Any, **kwargs: Any) -> Any:
        """Calls a method of Keras' trainer, which runs the step, with our list of callbacks."""
        call = bind(method, *args, **kwargs)
        given = call.arguments
        with ready.purpose(self, step, *(given.get(name) for name in ("x", "y", "sample_weight"))):
            is_list = isinstance(given.get("callbacks"), keras.callbacks.CallbackList)
            if is_list and "epochs" in given and self._run.resume is not None:
                raise ValueError("fit(resume=) takes its callbacks as a list, not a CallbackList.")
            if "callbacks" in given and not is_list:
                check(given["callbacks"])
                resume = self._run.resume if "epochs" in given else None
                given["callbacks"] = self._run.callbacks = CallbackList(given, resume)
            return method.__func__(*call.args, **call.kwargs)

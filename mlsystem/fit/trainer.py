"""`fit`, `evaluate` and their kin, as methods of a Keras model."""

from dataclasses import replace
from typing import Any

from mlsystem import _keras
from mlsystem._checks import is_count
from mlsystem._learner import Learner
from mlsystem._signature import bind
from mlsystem.callbacks.gradient_norms import unwatched
from mlsystem.engine import engine
from mlsystem.fit import call, data_arguments
from mlsystem.fit.arguments import FitArguments
from mlsystem.fit.validation import Validation
from mlsystem.preparation import lightning_hints


class Trainer(_keras.Hooks):
    """The part of a learner that Keras' `fit` talks to."""

    _mlsystem: Learner
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
        learner = self._mlsystem
        # Keras resolves "auto" to False on torch.
        learner.given = replace(learner.given, jit_compile=jit_compile)
        super().compile(*args, **kwargs)

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
        learner = self._mlsystem
        lightning_hints.check(learner)
        arguments = FitArguments(resume, validation_every, fast_run, overfit, max_time)
        given = bind(super().fit, x, y, *args, **kwargs)
        transform = data_arguments.for_fit(learner, given.arguments)
        arguments.say(resume, given.arguments["verbose"])
        with arguments.applied(given.arguments):
            try:
                return call.run(learner, "train_step", super().fit, given, transform, arguments)
            finally:
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
        learner, method, results = self._mlsystem, super().evaluate, {}
        given = bind(method, x, y, *args, **kwargs)
        for name, (parts, transform) in data_arguments.for_evaluate(
            learner, given.arguments
        ).items():
            given.arguments.update(parts)
            results[name] = call.run(learner, "test_step", method, given, transform)
        return data_arguments.together(results)

    # One of a subclass may take other steps than `test_step`, which is then not rehearsed.
    evaluate._is_default = True  # type: ignore[attr-defined]

    def train_on_batch(self, x: Any = None, y: Any = None, *args: Any, **kwargs: Any) -> Any:
        """One training step on one batch. See `keras.Model.train_on_batch`."""
        method = super().train_on_batch
        given = bind(method, x, y, *args, **kwargs)
        return call.run(self._mlsystem, "train_step", method, given)

    def test_on_batch(self, x: Any = None, y: Any = None, *args: Any, **kwargs: Any) -> Any:
        """One step of `evaluate` on one batch. See `keras.Model.test_on_batch`."""
        method = super().test_on_batch
        given = bind(method, x, y, *args, **kwargs)
        return call.run(self._mlsystem, "test_step", method, given)

    def predict(self, x: Any = None, *args: Any, **kwargs: Any) -> Any:
        """What the model returns, batch by batch. See `keras.Model.predict`.

        Args:
            x: as in Keras, an `ml.MLData` (its test data) or `ml.Streams`.
            args: the other arguments of `keras.Model.predict`.
            kwargs: the other arguments of `keras.Model.predict`.
        """
        given = bind(super().predict, x, *args, **kwargs)
        data_arguments.for_predict(self._mlsystem, given.arguments)
        with engine.predict_scope(self):
            return super().predict(*given.args[1:], **given.kwargs)

    def predict_on_batch(self, x: Any) -> Any:
        """What the model returns for one batch. See `keras.Model.predict_on_batch`."""
        with engine.predict_scope(self):
            return super().predict_on_batch(x)

    def get_compile_config(self) -> Any:
        """What `compile` was given, as Keras saves it."""
        config = _keras.portable(super().get_compile_config())
        # In which "auto" is resolved for this backend.
        return config and {**config, "jit_compile": self._mlsystem.given.jit_compile}

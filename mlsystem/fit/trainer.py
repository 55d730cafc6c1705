"""`Trainer`: the methods `fit`, `evaluate` and `predict` of a model."""

import inspect
from collections.abc import Iterable
from dataclasses import replace
from typing import Any

import keras

from mlsystem import _keras
from mlsystem._checks import did_you_mean, is_count, nearest
from mlsystem._learner import Learner
from mlsystem._signature import bind
from mlsystem.callbacks.watched_step import unwatched
from mlsystem.engine import engine
from mlsystem.engine.distribution import first_process, rows
from mlsystem.fit import call, data_arguments
from mlsystem.fit.fit_options import FitOptions
from mlsystem.fit.validation import Validation
from mlsystem.preparation import lightning_hints
from mlsystem.step import adapters


class Trainer(_keras.Hooks):
    """The part of a learner that Keras' `fit` calls."""

    _mlsystem: Learner
    optimizers: Any
    train_function: Any
    test_function: Any

    def compile(self, *args: Any, **kwargs: Any) -> None:
        """Configure training. See `keras.Model.compile`.

        `steps_per_execution` may also be "auto": as many steps as take 20 to 40 ms run as one
        program, on JAX and TensorFlow. PyTorch takes one step at a time.
        """
        _check_names(self, kwargs)
        jit_compile = kwargs.get("jit_compile", "auto")
        if not isinstance(jit_compile, bool) and jit_compile != "auto":
            raise ValueError(
                f"compile got jit_compile={jit_compile!r}; give True, False or 'auto'."
            )
        steps = kwargs.get("steps_per_execution", 1)
        if steps != "auto" and not is_count(steps):
            raise ValueError(
                f"compile got steps_per_execution={steps!r}; give a whole number from 1, or 'auto'."
            )
        learner, groups = self._mlsystem, steps == "auto"
        # Keras resolves "auto" to False on torch, and has no "auto" for steps.
        learner.given = replace(learner.given, jit_compile=jit_compile, groups_steps=groups)
        super().compile(*args, **kwargs | ({"steps_per_execution": 1} if groups else {}))

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
        on_device: bool | str = "auto",
        **kwargs: Any,
    ) -> Any:
        """Train for a number of epochs. See `keras.Model.fit`. You may leave out `compile`.

        `validation_data` may also be a dict of several sets, `{name: data}`. Each `data` is as in
        Keras. The logs of a set are `val_NAME_loss` and so on.

        Args:
            x: data as in Keras, an `ml.MLData` or `ml.Streams`. By default, the return value of the
                method `data` of the system.
            y: the targets, as in Keras.
            args: the other arguments of `keras.Model.fit`.
            resume: folder of `ml.callbacks.Checkpoint`, or one of its files. Training resumes from
                the newest file, at the batch where it stopped, and runs up to `epochs`. If the
                folder has no checkpoint, training starts from scratch. Only then `initial_epoch`
                has an effect. Pass the same data, batch size and callbacks as before. A warning
                names changes in the number of batches, the shapes of arrays, or their first rows.
            validation_every: number of batches between validations, counted over the whole `fit`.
                They replace the validation at the end of each epoch. Training gives the same
                weights, bit for bit. The logs of an epoch hold its latest `val_` numbers.
                `history.validations` holds all of them, with the number of batches as `batch`.
            fast_run: True for one batch, or a number of batches. Use it to test a script. It runs
                one epoch of so many batches, to train and to validate. Files of Keras' callbacks
                and of `Checkpoint` go to a folder that is removed afterwards. It ignores `resume`.
            overfit: number of batches. Use it to check that a model can learn. Every epoch trains
                on the same first batches in the same order. They also replace all validation data.
                They are kept in memory.
            max_time: time limit, in seconds or as a `datetime.timedelta`, from the call on.
                Training stops after the batch that reaches it, as if a callback stopped it. A later
                `resume` continues from there.
            on_device: "auto" runs many short steps on arrays as one program, on JAX. It takes
                single steps where a callback is told of each batch. The grouping of steps changes
                no bit of the result. False runs each step as a program of its own, with other
                rounding. True also runs long steps in groups, which is slower on a CPU. It raises
                an error, with the reason, where single steps must be taken.
            kwargs: the other arguments of `keras.Model.fit`.

        Raises:
            ValueError: before training, if arguments do not fit together. The message says how to
                fix them.
        """
        learner = self._mlsystem
        lightning_hints.check(learner)
        adapters.check_trained(self)
        arguments = FitOptions(resume, validation_every, fast_run, overfit, max_time, on_device)
        given = bind(super().fit, x, y, *args, **kwargs)
        first_process.quiet(given.arguments)
        transform = data_arguments.for_fit(learner, given.arguments)
        arguments.say(resume, given.arguments["verbose"])
        with arguments.applied(given.arguments):
            try:
                return call.run(learner, "train_step", super().fit, given, transform, arguments)
            finally:
                if hasattr(self, "train_function"):  # a backend that cannot train has none
                    self.train_function = unwatched(self.train_function)

    def evaluate(self, x: Any = None, y: Any = None, *args: Any, **kwargs: Any) -> Any:
        """Return the losses and metrics on a data set. See `keras.Model.evaluate`.

        Args:
            x: data as in Keras, an `ml.MLData` or `ml.Streams`. By default, the return value of the
                method `data` of the system. An MLData is evaluated on its test data, or on its
                validation data if it has none. The logs of several sets are named NAME_LOG.
            y: the targets, as in Keras.
            args: the other arguments of `keras.Model.evaluate`.
            kwargs: the other arguments of `keras.Model.evaluate`.
        """
        if isinstance(x, Validation):  # Keras' `fit` passes it at the end of an epoch
            return x.at_end_of_epoch(self, kwargs["callbacks"])
        learner, method, results = self._mlsystem, super().evaluate, {}
        given = bind(method, x, y, *args, **kwargs)
        for name, (parts, transform) in data_arguments.for_evaluate(
            learner, given.arguments
        ).items():
            given.arguments.update(parts)
            results[name] = call.run(learner, "test_step", method, given, transform)
        return data_arguments.together(results)

    # An overriding `evaluate` may not call `test_step`. It is not tested before training.
    evaluate._is_default = True  # type: ignore[attr-defined]

    def train_on_batch(self, x: Any = None, y: Any = None, *args: Any, **kwargs: Any) -> Any:
        """Run one training step on one batch. See `keras.Model.train_on_batch`."""
        method = super().train_on_batch
        given = bind(method, x, y, *args, **kwargs)
        rows.of_arguments(given.arguments)
        return call.run(self._mlsystem, "train_step", method, given)

    def test_on_batch(self, x: Any = None, y: Any = None, *args: Any, **kwargs: Any) -> Any:
        """Run one step of `evaluate` on one batch. See `keras.Model.test_on_batch`."""
        method = super().test_on_batch
        given = bind(method, x, y, *args, **kwargs)
        rows.of_arguments(given.arguments)
        return call.run(self._mlsystem, "test_step", method, given)

    def predict(self, x: Any = None, *args: Any, **kwargs: Any) -> Any:
        """Return the outputs of the model for all batches. See `keras.Model.predict`.

        Args:
            x: data as in Keras, an `ml.MLData` (its test data) or `ml.Streams`.
            args: the other arguments of `keras.Model.predict`.
            kwargs: the other arguments of `keras.Model.predict`.
        """
        given = bind(super().predict, x, *args, **kwargs)
        data_arguments.for_predict(self._mlsystem, given.arguments)
        with engine.predict_scope(self), adapters.predicting(self), rows.predicted():
            return super().predict(*given.args[1:], **given.kwargs)

    def predict_on_batch(self, x: Any) -> Any:
        """Return the outputs of the model for one batch. See `keras.Model.predict_on_batch`."""
        with engine.predict_scope(self), adapters.predicting(self):
            return super().predict_on_batch(x)

    def get_compile_config(self) -> Any:
        """Return the arguments of `compile`, as Keras saves them."""
        config, given = _keras.portable(super().get_compile_config()), self._mlsystem.given
        # Keras resolves "auto" for this backend in its config.
        steps = {"steps_per_execution": "auto"} if given.groups_steps else {}
        return config and {**config, "jit_compile": given.jit_compile, **steps}


def _check_names(model: Any, given: Iterable[str]) -> None:
    """Raise an error for a name that `compile` does not take."""
    known = list(inspect.signature(keras.Model.compile).parameters)[1:]
    for name in given:
        if name not in known:
            attribute = f" `{name}` is an attribute: set it on the class or on the model."
            is_one = hasattr(type(model), name)
            hint = attribute if is_one else did_you_mean(nearest(name, known))
            raise TypeError(f"compile got `{name}`, and takes {', '.join(known)}.{hint}")

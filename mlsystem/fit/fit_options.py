"""Our arguments of `fit`, such as `resume`, `validation_every`, `fast_run` and `on_device`."""

import contextlib
from collections.abc import Iterator
from typing import Any

import keras

from mlsystem import _keras
from mlsystem._checks import is_count
from mlsystem.callbacks.batch_callback import BatchCallback
from mlsystem.callbacks.profile import Profile
from mlsystem.fit import fast_run, time_limit, validation, validation_preview
from mlsystem.fit.callback_list import check
from mlsystem.fit.fast_run import keep_first
from mlsystem.fit.mid_epoch_validation import ValidateEvery
from mlsystem.fit.validation import Validation
from mlsystem.saving.resume import Resume, find


class FitOptions:
    """The checked arguments of one `fit` that Keras does not have. `Trainer.fit` describes them.

    Args:
        resume: the folder or file to resume from.
        every: `validation_every`.
        fast_run: True, or a number of batches.
        overfit: a number of batches.
        max_time: seconds, or a `datetime.timedelta`.
        on_device: True, False or "auto".
    """

    def __init__(
        self,
        resume: Any,
        every: Any,
        fast_run: Any,
        overfit: Any,
        max_time: Any,
        on_device: bool | str = "auto",
    ) -> None:
        if not isinstance(on_device, bool) and on_device != "auto":
            raise ValueError(f"fit got on_device={on_device!r}; give True, False or 'auto'.")
        self.on_device = on_device
        self.most = _fast_run(fast_run)
        self.every = _count("validation_every", every)
        self.overfit = _count("overfit", overfit)
        self.seconds = None if max_time is None else time_limit.seconds(max_time)
        self.resume: Resume | None = None if self.most else find(resume)
        self.begins_anew = resume is not None and self.resume is None and not self.most
        self.validation: Validation | None = None
        self.previews: dict[str, list[Any]] = {}
        self.quiet: list[BatchCallback] = []
        self.epoch: Any = None
        if self.most and self.overfit:
            raise ValueError(
                f"fit got fast_run={fast_run!r} and overfit={overfit!r}: one is a single short "
                "epoch, the other many. Give one of them."
            )

    @contextlib.contextmanager
    def applied(self, given: dict[str, Any]) -> Iterator[None]:
        """Apply these options to the arguments of a `fit`. Prepare validation and time limit."""
        self._check_callbacks(given["callbacks"])
        if self.every:
            _check_every(given)
        with contextlib.ExitStack() as stack:
            if self.overfit:
                keep_first(given, self.overfit)
            if self.most:
                stack.enter_context(fast_run.shortened(given))
            self._read_validation(given)
            if self.seconds is not None:
                self.quiet.append(time_limit.TimeLimit(self.seconds))
            yield

    def say(self, place: Any, verbose: Any) -> None:
        """Print that training starts from scratch, or that this is a fast run."""
        if self.begins_anew and verbose != 0:
            print(f"'{place}' holds no checkpoint yet. Training starts from scratch.")
        if self.most and verbose != 0:
            print(
                f"A trial run: one epoch, batches to train and validate on: {self.most}, no files."
            )

    def _read_validation(self, given: dict[str, Any]) -> None:
        if given["validation_data"] is None and given["validation_split"]:
            arrays = (given[name] for name in ("x", "y", "sample_weight", "validation_split"))
            (given["x"], given["y"], given["sample_weight"]), kept = _keras.split(*arrays)
            given |= {"validation_data": kept, "validation_split": 0.0}
        validation.check(given)
        if validation_preview.is_due(given):
            given["validation_data"], self.previews = validation_preview.look(given)
        self.validation = validation.read(given, always=bool(self.every))
        if self.validation is not None:
            given["validation_data"] = self.validation
        if self.every and self.validation is not None:
            every = 1 if self.most else self.every
            self.quiet.append(ValidateEvery(every, self.validation, given["x"]))

    def _check_callbacks(self, callbacks: Any) -> None:
        used = {
            "resume": self.resume,
            "validation_every": self.every,
            "fast_run": self.most,
            "max_time": self.seconds,
        }
        profiles = [c for c in keras.tree.flatten(callbacks or []) if isinstance(c, Profile)]
        if len(profiles) > 1:
            raise ValueError("fit got two Profile callbacks, and only one profiler runs at a time.")
        names = [f"{name}=" for name, value in used.items() if value is not None]
        if not isinstance(callbacks, keras.callbacks.CallbackList):
            check(callbacks)
        elif names:
            raise ValueError(
                f"fit({', '.join(names)}) takes its callbacks as a list, not a CallbackList."
            )


def _check_every(given: dict[str, Any]) -> None:
    if given["validation_data"] is None and not given["validation_split"]:
        raise ValueError(
            "fit got validation_every without data to validate on. Give validation_data too."
        )
    if given["validation_freq"] != 1:
        raise ValueError(
            f"fit got validation_every, which counts batches, and validation_freq="
            f"{given['validation_freq']!r}, which counts epochs. Give one of them."
        )


def _count(name: str, value: Any, kinds: str = "a number of batches from 1") -> int | None:
    if value is None or is_count(value):
        return value
    raise ValueError(f"fit got {name}={value!r}; give {kinds}.")


def _fast_run(value: Any) -> int | None:
    if isinstance(value, bool):
        return 1 if value else None
    return _count("fast_run", value, "True, or a number of batches from 1")

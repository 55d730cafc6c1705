"""`Run`: one `fit` as `Log` writes it to a tracker."""

import contextlib
import time
import warnings
from collections.abc import Callable, Iterator, Mapping
from typing import Any

import numpy as np
from keras import ops

from mlsystem.callbacks.measured_steps import MeasuredSteps
from mlsystem.callbacks.meter import Meter
from mlsystem.callbacks.tracking import samples
from mlsystem.callbacks.tracking.configuration import configuration
from mlsystem.callbacks.tracking.point import Point, rates
from mlsystem.callbacks.tracking.series import Series
from mlsystem.callbacks.tracking.target import Target
from mlsystem.callbacks.undisturbed import sampling
from mlsystem.engine import engine, random_state
from mlsystem.plot.picture import system as picture_of

_PAUSE = 60.0  # seconds without a try after a tracker has failed


class Run:
    """Reads the numbers of one call of `fit`, and writes them.

    Args:
        model: the model that is trained, ready for its first step.
        target: the tracker, None on all processes but the first.
        kept: what a checkpoint keeps: the run of the tracker, the number of batches, that of the
            last validation inside an epoch that was written, best values.
    """

    def __init__(self, model: Any, target: Target | None, kept: dict[str, Any]) -> None:
        self.model, self.target, self.kept = model, target, kept
        self.series = Series(model._mlsystem)
        self.before = 0  # number of batches of earlier calls of `fit`
        self.data: Any = None
        self.settings: dict[str, Any] = {}  # of this fit
        self.draw: Callable[[], Any] | None = None
        self.first: Any = None  # the samples before training
        self.meter: Meter | None = None
        self.measured: list[MeasuredSteps] = []
        self.is_over = False
        self.is_inside = False  # whether an epoch is resumed in its middle
        self._opened: str | None = None  # the new run, until it is described
        self._is_described = False
        self._pending: Point | None = None  # computed on the device, and not read yet
        self._latest: Point | None = None  # of this epoch
        self._quiet_until = 0.0
        self._has_warned = False

    def start(self, run: str | None) -> None:
        """Open the tracker. Raise an error that says what to do if it fails.

        Samples are drawn first, so that an error in the user's function leaves nothing behind.
        """
        if self.target is None:
            return
        self.first = None if run else self._samples()
        charts = self.series.charts()
        try:
            with _random_kept():
                opened = self.target.start(self.model.name, run, self.kept["batches"], charts)
            self._opened = None if run else opened
        except Exception as error:
            raise RuntimeError(
                f"Log cannot open a run in {self.name}: {_short(error)} Nothing is trained. "
                f"{self.target.advice}, or leave the callback out."
            ) from error

    @property
    def name(self) -> str:
        """The name of the tracker in messages."""
        return "" if self.target is None else self.target.name

    def begin_epoch(self) -> None:
        """Describe the run before its first epoch. Note that the means start from zero."""
        self._latest = None
        if self.meter is not None:
            self.meter.found = {}
        if not self._is_described:
            self._is_described = True
            self._describe()

    def _describe(self) -> None:
        """Write the configuration, the picture, and samples of the start."""

        def settings() -> tuple[dict[str, Any]]:
            return (configuration(self.model._mlsystem, self.settings),)

        if self._opened is None:
            self._write("resumed", settings)
            return
        self.kept["run"] = self._opened
        self._write("configuration", settings)
        if self.target is not None and self.target.takes_images:
            with engine.replicas.alone():  # only the first of several processes traces the model
                self._write("picture", lambda: (picture_of(self.model),))
        self._draw_samples()

    def resume_inside(self) -> None:
        """Note the means of an epoch that is resumed in its middle, before its next batch."""
        if self.is_inside:
            self.is_inside = False
            self._latest = Point(self.model._mlsystem, self.kept["batches"], None, {})

    def add_point(self) -> None:
        """Copy the numbers of now on the device, and write those of the point before."""
        point = Point(
            self.model._mlsystem, self.kept["batches"], self._latest, self._measurements()
        )
        self._write_pending()
        self._pending = self._latest = point

    def _measurements(self) -> dict[str, float]:
        found: dict[str, float] = {}
        for callback in self.measured:
            found |= callback.latest.logs()
        if self.meter is not None:
            found |= self.meter.found
        return found

    def end_epoch(self, logs: Mapping[str, Any]) -> None:
        """Write the logs of an epoch, without those that points have written."""
        learner, logs = self.model._mlsystem, _numbers(logs)
        self._write_pending()
        known = set() if self._latest is None else {*self._latest.means, *self._latest.others}
        known |= self._write_validations()
        found = {name: value for name, value in logs.items() if name not in known}
        if self._latest is None:
            now = {n: float(ops.convert_to_numpy(v)) for n, v in rates(learner).items()}
            found = now | self._measurements() | found
        self._log(found, self.kept["batches"])
        self._compare(logs)
        self._draw_samples()

    def _draw_samples(self) -> None:
        """Write a grid of samples. An error in the user's function is not caught."""
        first, self.first = self.first, None
        pixels = self._samples() if first is None else first
        if pixels is not None:
            self._write("image", lambda: ("samples", pixels, self.kept["batches"]))

    def _samples(self) -> Any:
        """Return a grid of samples, or None if there are none to draw."""
        if self.draw is None or self.target is None:
            return None
        with sampling(self.model, self.data):
            return samples.grid(self.draw)

    def _write_pending(self) -> None:
        point, self._pending = self._pending, None
        if point is not None:
            self._log(point.values(), point.step)

    def _write_validations(self) -> set[str]:
        """Write what `validation_every` has validated in this epoch, and return its logs."""
        found = dict(getattr(self.model.history, "validations", {}))
        batches = found.pop("batch", [])
        for place, batch in enumerate(batches):
            step = self.before + batch
            if step > self.kept["validated"]:
                values = {n: values[place] for n, values in found.items() if place < len(values)}
                self._log(_numbers(values), step)
                self.kept["validated"] = step
        return set(found)

    def _compare(self, logs: Mapping[str, float]) -> None:
        best = self.kept["best"]
        for log, value in logs.items():
            name = self.series.name(log)
            if self.series.better(log, value, best.get(name)):
                best[name] = value

    def end(self) -> None:
        """Write the best values, once training has ended."""
        self.is_over = True
        if self.kept["best"]:
            self._write("best", lambda: (self.kept["best"], self.kept["batches"]))

    def close(self) -> None:
        """Close the run in the tracker, also after an error."""
        self._write_pending()
        self._quiet_until = 0.0
        self._write("end", lambda: (not self.is_over,))

    def _log(self, values: Mapping[str, float], step: int) -> None:
        if values:
            self._write("log", lambda: (self.series.named(values), step))

    def _write(self, what: str, given: Callable[[], tuple[Any, ...]]) -> None:
        """Call the tracker. A failure is one warning, and training continues."""
        if self.target is None or time.monotonic() < self._quiet_until:
            return
        try:
            with _random_kept():
                getattr(self.target, what)(*given())
        except Exception as error:
            self._quiet_until = time.monotonic() + _PAUSE
            if not self._has_warned:
                self._has_warned = True
                warnings.warn(
                    f"Log cannot write to {self.name}: {_short(error)} Training continues. What "
                    "cannot be written is left out. Log tries again after a minute.",
                    stacklevel=2,
                )


@contextlib.contextmanager
def _random_kept() -> Iterator[None]:
    """Keep the random generators. Trackers draw from them when they are imported, and for names."""
    state = random_state.state()
    try:
        yield
    finally:
        random_state.restore(state)


def _numbers(logs: Mapping[str, Any]) -> dict[str, float]:
    """Return the logs that are one number. A metric may have several, as one for each class."""
    return {name: float(value) for name, value in logs.items() if np.ndim(value) == 0}


def _short(error: Exception) -> str:
    """Return the first lines of an error as a sentence."""
    text = " ".join(str(error).split())[:300].rstrip(".")
    return f"{type(error).__name__}: {text}." if text else f"{type(error).__name__}."

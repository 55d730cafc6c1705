"""`Run`: one `fit` as `Live` shows it."""

import time
from collections.abc import Iterable, Mapping
from typing import Any

from mlsystem.callbacks.advice import Advice
from mlsystem.callbacks.compact_logs import loss_logs
from mlsystem.callbacks.live import surfaces
from mlsystem.callbacks.live.clock import Clock
from mlsystem.callbacks.live.film import Film
from mlsystem.callbacks.live.progress import Progress
from mlsystem.callbacks.live.readings import Readings
from mlsystem.callbacks.live.rows import colors, rows
from mlsystem.callbacks.live.view import View
from mlsystem.callbacks.measured_steps import MeasuredSteps
from mlsystem.callbacks.meter import Meter
from mlsystem.callbacks.undisturbed import sampling


class Run:
    """Reads, measures and shows one call of `fit`.

    Args:
        model: the model that is trained, ready for its first step.
        clock: decides when the view is updated.
        progress: the place of training.
        film: the samples to draw, or None.
        data: the training data, as `fit` got them.
    """

    def __init__(
        self, model: Any, clock: Clock, progress: Progress, film: Film | None, data: Any
    ) -> None:
        self.model, self.clock, self.progress, self.film = model, clock, progress, film
        self.data = data
        self.readings = Readings(model._mlsystem, colors=colors(model._mlsystem))
        self.surface = surfaces.choose()
        self.meter: Meter | None = None
        self.advice: list[Advice] = []
        self.measured: list[MeasuredSteps] = []
        self.is_shown = False
        self.is_timed = self.surface.is_timed or film is not None

    def meet(self, callbacks: Iterable[Any]) -> None:
        """Find the callbacks that give advice, and those that measure."""
        self.advice = [c for c in callbacks if isinstance(c, Advice)]
        self.measured = [c for c in callbacks if isinstance(c, MeasuredSteps)]

    def begin_epoch(self, epoch: int) -> None:
        """Note that an epoch begins. The first one shows the empty view."""
        self.progress.begin_epoch(epoch)
        self.readings.begin_epoch()
        if not self.is_shown:
            self.is_shown = True
            self._draw_samples(f"epoch {epoch}" if epoch else "start")
            self.surface.start(self._view())

    def before(self) -> None:
        """Have the next batch measured, if the view is due after it."""
        if self.meter is not None and self.is_timed and self.clock.is_due():
            self.meter.is_due = True

    def after(self, first: int, last: int) -> None:
        """Count the batches of a step. Update the view if it is due."""
        self.progress.count(first, last)
        if self.is_timed and self.clock.is_due():
            self._update()

    def _update(self) -> None:
        start = time.perf_counter()
        self.readings.read(self.progress.position)
        for callback in self.measured:
            self.readings.latest |= callback.latest.logs()
        measured = 0.0
        if self.meter is not None:
            self.readings.latest |= self.meter.found
            measured = self.meter.seconds
        self._draw_samples(f"epoch {self.progress.epoch}")
        self.surface.update(self._view())
        self.clock.updated(time.perf_counter() - start + measured)

    def _draw_samples(self, moment: str) -> None:
        if self.film is None:
            return
        with sampling(self.model, self.data):
            self.film.add(moment)

    def end_epoch(self, logs: Mapping[str, Any]) -> None:
        """Add the logs of an epoch."""
        self.progress.end_epoch()
        self.readings.end_epoch(logs, self.progress.position)
        self.surface.end_epoch(self.progress.line(), logs, loss_logs(self.model._mlsystem))

    def end(self) -> None:
        """Show the run as it ended."""
        self.progress.is_over = True
        self._draw_samples(f"epoch {self.progress.epoch}")
        self.surface.update(self._view())

    def close(self) -> None:
        """Leave the view as it is."""
        self.surface.close()

    def _view(self) -> View:
        sentences = [sentence for advice in self.advice for sentence in advice.sentences()]
        return View(
            self.progress.parts(),
            rows(self.readings),
            first=float(self.progress.first_epoch - 1),
            last=float(self.progress.epochs),
            sentences=sentences,
            film=self.film,
        )

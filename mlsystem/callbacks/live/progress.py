"""`Progress`: how far training is, how fast it runs, and how long it will still take."""

import time
from dataclasses import dataclass, field


@dataclass
class Progress:
    """The place of training in its epochs and batches.

    Attributes:
        name: the name of the model.
        epochs: the number of the last epoch.
        batches: number of batches in an epoch. None if it is unknown.
        batch_size: number of samples in a batch. None if it is unknown.
        epoch: the running epoch, from 1.
        batch: number of batches seen in this epoch.
        seen: number of batches seen in this `fit`.
        first_epoch: the epoch with which this `fit` started, from 1.
        started: the time at which the first batch ended. The first step compiles.
    """

    name: str
    epochs: int = 1
    batches: int | None = None
    batch_size: int | None = None
    epoch: int = 1
    batch: int = 0
    seen: int = 0
    first_epoch: int = 1
    started: float = 0.0
    is_over: bool = False
    _begun: float = field(default_factory=lambda: time.perf_counter())
    _epoch_begun: float = 0.0
    _last: tuple[float, int] = (0.0, 0)  # the time of the last update, and the batches then

    def begin_epoch(self, epoch: int) -> None:
        """Note that an epoch begins, given its number from 0."""
        self.epoch, self.batch = epoch + 1, 0
        self._epoch_begun = time.perf_counter()
        if not self.seen:
            self.first_epoch = self.epoch

    def end_epoch(self) -> None:
        """Note that the epoch is over. Its length is known now."""
        self.batches = self.batches or self.batch

    def line(self) -> str:
        """Return the start of the line about an epoch that is over."""
        seconds = time.perf_counter() - self._epoch_begun
        return f"epoch {self.epoch}/{self.epochs}  {self.batch} batches  {seconds:.1f} s"

    def count(self, first: int, last: int) -> None:
        """Count the batches of one step."""
        self.batch = last + 1
        self.seen += last + 1 - first
        if not self.started:
            self.started = time.perf_counter()
            self._last = self.started, self.seen

    @property
    def position(self) -> float:
        """The number of epochs that are over, with the part of the running one if it is known."""
        part = self.batch / self.batches if self.batches else 0.0
        return self.epoch - 1 + min(part, 1.0)

    def speed(self) -> str:
        """Return the samples or batches per second since the last call. Empty if unknown."""
        now = time.perf_counter()
        (before, seen), self._last = self._last, (now, self.seen)
        if not self.started or self.seen <= seen or now <= before:
            return ""
        rate = (self.seen - seen) / (now - before)
        what = "batches" if self.batch_size is None else "samples"
        return f"{_round(rate * (self.batch_size or 1))} {what}/s"

    def time(self) -> str:
        """Return the time that is left, or that was taken."""
        if self.is_over or self.batches is None:
            return f"took {clock(time.perf_counter() - self._begun)}"
        steps = max(1, self._seen_after_first())
        left = self.batches * (self.epochs - self.epoch + 1) - self.batch
        is_known = self.started and self._seen_after_first() > 0
        seconds = (time.perf_counter() - self.started) / steps * left
        return f"left {clock(seconds)}" if is_known else ""

    def _seen_after_first(self) -> int:
        return self.seen - 1

    def parts(self) -> list[str]:
        """Return the parts of the heading: name, epoch, batch, speed and time."""
        batches = f"{self.batch}/{self.batches}" if self.batches else f"{self.batch}"
        epoch = f"epoch {self.epoch}/{self.epochs}"
        found = [self.name, epoch, f"batch {batches}", self.speed(), self.time()]
        return [part for part in found if part]


def clock(seconds: float) -> str:
    """Return a time as `00:41` or `1:02:05`.

    >>> clock(41), clock(3725)
    ('00:41', '1:02:05')
    """
    minutes, rest = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours}:{minutes:02d}:{rest:02d}" if hours else f"{minutes:02d}:{rest:02d}"


def _round(rate: float) -> str:
    return f"{rate:,.0f}" if rate >= 10 else f"{rate:.1f}"

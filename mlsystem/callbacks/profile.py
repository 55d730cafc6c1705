"""`Profile`: record a profiler trace of some training steps."""

import warnings
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from keras import ops

from mlsystem._checks import as_folder, is_count
from mlsystem.callbacks.batch_callback import BatchCallback
from mlsystem.engine import engine


class Profile(BatchCallback):
    """A callback that writes a profiler trace of some training steps, on host and device.

    Use it to find out where a slow training step spends its time.

    ```python
    gan.fit(images, epochs=10, callbacks=[ml.callbacks.Profile("traces", start=10, steps=5)])
    ```

    It uses the profiler of the backend (`jax.profiler`, `torch.profiler`, `tf.profiler`). It prints
    the path of the trace and how to open it, and keeps both in `path` and `how`.

    The first steps compile, so skip them with `start`. With `steps_per_execution`, the trace holds
    all batches of an execution.

    Args:
        folder: folder of the trace. It is created if it does not exist.
        start: number of batches to skip at the start of `fit`.
        steps: number of batches in the trace.

    Raises:
        ValueError: if an argument has another value.
    """

    def __init__(self, folder: Any, start: int = 10, steps: int = 5) -> None:
        super().__init__()
        if not is_count(steps) or not (is_count(start) or (start == 0 and start is not False)):
            raise ValueError(
                f"Profile got start={start!r} and steps={steps!r}; give numbers of batches, from 0 "
                "and from 1."
            )
        self.folder = as_folder(folder, "Profile")
        self.start, self.steps = start, steps
        self.path: Path | None = None
        self.how = ""
        self._is_followed = False
        self._stop: Callable[[], tuple[Path, str]] | None = None
        self._batches = _Batches()

    def follow(self, callbacks: Any, epoch: Any) -> None:
        """Reset the count of batches. See `BatchCallback`."""
        self._is_followed, self._batches, self.path = True, _Batches(), None

    def on_train_begin(self, logs: Any = None) -> None:
        """Check that `fit` called `follow`. `fit` calls all `on_` methods."""
        if not self._is_followed:
            raise ValueError(
                "Profile needs the `fit` of an MLModel or MLSystem, and its callbacks as a list."
            )

    def before_batches(self, first: int) -> None:
        """Start the trace if enough batches were skipped. See `BatchCallback`."""
        if self._stop is None and self.path is None and self._batches.seen >= self.start:
            self.folder.mkdir(parents=True, exist_ok=True)
            self._wait()
            self._batches.first = self._batches.seen
            self._stop = engine.profile(str(self.folder))

    def after_batches(self, first: int, last: int) -> None:
        """Count the batches, and end a trace that is complete. See `BatchCallback`."""
        self._batches.seen += last + 1 - first
        is_full = self._batches.seen >= self._batches.first + self.steps
        if self._stop is not None and is_full:
            self._end()

    def on_train_end(self, logs: Any = None) -> None:
        """End a trace for which there were too few batches. Warn if there is no trace."""
        if self._stop is not None:
            self._end()
        if (seen := self._batches.seen) and self.path is None:
            warnings.warn(
                f"Profile starts after {self.start} batches, and training had {seen}. There is no "
                "trace. Give a smaller `start`.",
                stacklevel=2,
            )

    def close(self) -> None:
        """Stop a trace that is still running. See `BatchCallback`."""
        self._is_followed = False
        if self._stop is not None:  # otherwise no other trace could start
            self._stop()
            self._stop = None

    def _end(self) -> None:
        self._wait()
        stop, self._stop = self._stop, None
        assert stop is not None
        self.path, self.how = stop()
        if self.params["verbose"] != 0:
            batches = f"{self._batches.first + 1} to {self._batches.seen}"
            print(f"\nThe trace of batches {batches} is in '{self.path}'. {self.how}")

    def _wait(self) -> None:
        """Wait until the steps so far are done."""
        if self.model.optimizer is not None:
            ops.convert_to_numpy(self.model.optimizer.iterations)


@dataclass
class _Batches:
    """The counts of batches in this `fit`.

    They are in an object because a checkpoint would restore plain numbers of an earlier `fit`.
    """

    seen: int = 0
    first: int = 0  # first batch in the trace

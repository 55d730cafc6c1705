"""Profile: a trace of some steps, by the backend's own profiler."""

import warnings
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from keras import ops

from mlsystem._checks import as_folder, is_count
from mlsystem.callbacks.batch_callback import Quiet
from mlsystem.engine import engine


class Profile(Quiet):
    """Writes a trace of some training steps: what ran when, on the host and on the device.

    ```python
    gan.fit(images, epochs=10, callbacks=[ml.callbacks.Profile("traces", start=10, steps=5)])
    ```

    The profiler is that of the backend (`jax.profiler`, `torch.profiler`, `tf.profiler`). Where the
    trace is, and how to open it, is printed, and stays in `path` and `how`.

    The first steps compile, so that they are better let pass. Of the batches of a
    `steps_per_execution` all are in the trace.

    Args:
        folder: where the trace goes; made if need be.
        start: number of batches of the `fit` to let pass before.
        steps: number of batches in the trace.

    Raises:
        ValueError: an argument is none of these.
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
        """See `Quiet`."""
        self._is_followed, self._batches, self.path = True, _Batches(), None

    def on_train_begin(self, logs: Any = None) -> None:
        """Called by `fit`; so are the others."""
        if not self._is_followed:
            raise ValueError(
                "Profile needs the `fit` of an MLModel or MLSystem, and its callbacks as a list."
            )

    def before_batches(self, first: int) -> None:
        """See `Quiet`."""
        if self._stop is None and self.path is None and self._batches.seen >= self.start:
            self.folder.mkdir(parents=True, exist_ok=True)
            self._wait()
            self._batches.first = self._batches.seen
            self._stop = engine.profile(str(self.folder))

    def after_batches(self, first: int, last: int) -> None:
        """See `Quiet`."""
        self._batches.seen += last + 1 - first
        is_full = self._batches.seen >= self._batches.first + self.steps
        if self._stop is not None and is_full:
            self._end()

    def on_train_end(self, logs: Any = None) -> None:
        """Ends a trace for which there were too few batches."""
        if self._stop is not None:
            self._end()
        if (seen := self._batches.seen) and self.path is None:
            warnings.warn(
                f"Profile lets {self.start} batches pass, and training had {seen}: there is no "
                "trace. Give a smaller `start`.",
                stacklevel=2,
            )

    def close(self) -> None:
        """See `Quiet`."""
        self._is_followed = False
        if self._stop is not None:  # or no other could ever start
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
        """Waits for the steps so far."""
        if self.model.optimizer is not None:
            ops.convert_to_numpy(self.model.optimizer.iterations)


@dataclass
class _Batches:
    """Those of this call of `fit`. An object, for a checkpoint would give plain numbers back."""

    seen: int = 0
    first: int = 0  # in the trace

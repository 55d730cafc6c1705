"""Write checkpoints, optionally in a thread, and handle errors of writing."""

import shutil
import warnings
from collections.abc import Callable, Iterable
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path

from mlsystem.saving import checkpoint_file, checksum
from mlsystem.saving.folder_lock import Lock

STEPS = f"step-*{checkpoint_file.ENDING}"
_LARGE = 100_000_000  # bytes; for larger files training does not wait for the disk


class Writer:
    """A writer of checkpoints to one folder. It locks the folder until it is closed.

    Args:
        folder: the folder. It is created if it does not exist.
        in_thread: whether to write while training continues. "auto" does so for large files.
        on_error: "raise" or "warn", for a file that cannot be written.

    Raises:
        RuntimeError: if another run holds the folder.
        OSError: if the folder is not writable.
    """

    def __init__(self, folder: Path, in_thread: bool | str, on_error: str) -> None:
        self.folder, self.in_thread, self.on_error = folder, in_thread, on_error
        try:
            folder.mkdir(parents=True, exist_ok=True)
            self._lock = Lock(folder)
            checkpoint_file.clean(folder)
        except OSError as error:
            raise OSError(
                f"Checkpoint cannot write to the folder '{folder}'. Choose another one, or make "
                f"room there. {type(error).__name__}: {error}"
            ) from error
        self._pool = ThreadPoolExecutor(1, "checkpoint")
        self._pending: Future[None] | None = None

    def write(
        self,
        paths: Iterable[Path],
        content: memoryview,
        first: Callable[[], None],
        then: Callable[[], None],
    ) -> None:
        """Write the same content to some paths. Call a function before that, and one after."""
        self.wait()
        self._pending = self._pool.submit(self._write, paths, content, first, then)
        if not (content.nbytes > _LARGE if self.in_thread == "auto" else self.in_thread):
            self.wait()

    def _write(
        self,
        paths: Iterable[Path],
        content: memoryview,
        first: Callable[[], None],
        then: Callable[[], None],
    ) -> None:
        first()
        end = checksum.of(content)
        for path in paths:
            try:
                checkpoint_file.write(path, content, end)
            except OSError:
                self._write_again(path, content, end)
        then()

    def _write_again(self, path: Path, content: memoryview, end: bytes) -> None:
        try:
            self.folder.mkdir(parents=True, exist_ok=True)
            self._lock.renew()
            checkpoint_file.write(path, content, end)
        except OSError as error:
            raise OSError(self._message(path, content.nbytes, error)) from error

    def _message(self, path: Path, size: int, error: OSError) -> str:
        last = max(self.folder.glob(STEPS), default=None)
        kept = f"The last good checkpoint is '{last}'" if last else "There is no earlier checkpoint"
        return (
            f"The checkpoint '{path}' ({size / 1e6:.1f} MB, {_free(self.folder)}) could not be "
            f"written. {type(error).__name__}: {error}. {kept}. Make room or mend the folder, and "
            "start again with fit(resume=folder)."
        )

    def wait(self) -> None:
        """Wait until all files are written.

        Raises:
            OSError: if a file could not be written and `on_error` is "raise".
        """
        if self._pending is None:
            return
        error = self._pending.exception()
        self._pending = None
        if error is None:
            return
        if self.on_error == "raise" or not isinstance(error, OSError):
            raise error
        warnings.warn(f"{error} Training continues without it.", stacklevel=2)

    def close(self) -> None:
        """Wait until all files are written, and unlock the folder. Warn of an error."""
        try:
            self._pool.shutdown()
            self.on_error = "warn"
            self.wait()
        finally:
            self._lock.release()


def _free(folder: Path) -> str:
    try:
        return f"{shutil.disk_usage(folder).free / 1e6:.1f} MB free"
    except OSError:
        return "the folder is gone"

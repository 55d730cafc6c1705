"""The lock of a folder that one run at a time may write to.

A lock is a file in the folder, named `.lock.PROCESS.START.HOST`. The name tells which process holds
the folder. So a lock is never half written. Removing the lock of a dead process never removes
another lock. START is the start time of the process, because process ids are reused.
"""

import contextlib
import os
import socket
import sys
import threading
from collections.abc import Iterator
from pathlib import Path

# Seconds. A lock from another machine is dead if it was not renewed for `_DEAD` seconds.
_RENEW, _DEAD = 5.0, 30.0
_held: set[Path] = set()  # locks of this process


class Lock:
    """The lock of one folder.

    Args:
        folder: the folder, which exists.

    Raises:
        RuntimeError: if another run holds the folder.
        OSError: if the folder is not writable.
    """

    def __init__(self, folder: Path) -> None:
        pid = os.getpid()
        self.path = folder.resolve() / f".lock.{pid}.{_started(pid)}.{socket.gethostname()}"
        self._released = threading.Event()
        if self.path in _held:
            raise _refusal(self.path, pid, socket.gethostname())
        try:
            self.renew()
            self._refuse_second()
        except BaseException:
            self.path.unlink(missing_ok=True)
            raise
        _held.add(self.path)
        self._thread = threading.Thread(target=self._keep, daemon=True)
        self._thread.start()

    def _refuse_second(self) -> None:
        for path, pid, host in _locks(self.path.parent):
            if path != self.path and self._is_living(path, pid, host):
                raise _refusal(path, pid, host)
            if path != self.path:
                path.unlink(missing_ok=True)

    def _is_living(self, path: Path, pid: int, host: str) -> bool:
        if host != socket.gethostname():
            return _age(path, self.path) < _DEAD
        return pid != os.getpid() and is_running(pid) and _started(pid) == path.name.split(".")[3]

    def renew(self) -> None:
        """Write the lock file, also after its folder was removed."""
        self.path.write_text("Training writes to this folder.\n")

    def _keep(self) -> None:
        while not self._released.wait(_RENEW):
            with contextlib.suppress(OSError):  # the next checkpoint reports the error
                self.renew()

    def release(self) -> None:
        """Unlock the folder."""
        self._released.set()
        self._thread.join()
        _held.discard(self.path)
        with contextlib.suppress(OSError):
            self.path.unlink()


def _refusal(path: Path, pid: int, host: str) -> RuntimeError:
    return RuntimeError(
        f"Another run, process {pid} on '{host}', writes to the folder '{path.parent}'. Choose "
        "another folder, or wait until that run has ended. If there is no such run, remove "
        f"'{path}'."
    )


def _locks(folder: Path) -> Iterator[tuple[Path, int, str]]:
    for path in folder.glob(".lock.*.*.*"):
        _, _, pid, _, host = path.name.split(".", 4)
        if pid.isdigit():
            yield path, int(pid), host


def _age(path: Path, now: Path) -> float:
    """Return by how many seconds a file is older than another, by the clock of their disk."""
    with contextlib.suppress(FileNotFoundError):
        return now.stat().st_mtime - path.stat().st_mtime
    return float("inf")  # the file is gone


def is_running(pid: int) -> bool:
    """Return whether a process of this machine is running."""
    if sys.platform == "win32":  # `os.kill` ends a process there, with any signal
        import ctypes

        process = ctypes.windll.kernel32.OpenProcess(0x100000, False, pid)  # allows to wait
        still = bool(process) and ctypes.windll.kernel32.WaitForSingleObject(process, 0) == 0x102
        ctypes.windll.kernel32.CloseHandle(process)
        return still
    try:
        os.kill(pid, 0)
    except (ProcessLookupError, OverflowError):
        return False
    except PermissionError:
        return True
    return _started(pid) != "ended"


def _started(pid: int) -> str:
    """Return the start time of a process in ticks of Linux, or 0 on other systems."""
    try:
        fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    except OSError:
        return "0"
    return "ended" if fields[0] in "ZX" else fields[19]  # the parent has not waited for it

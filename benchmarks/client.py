"""The parent's side of a worker: its process, its commands, its answers."""

import multiprocessing
import os
from pathlib import Path
from typing import Any

from benchmarks.catalog import Entry
from benchmarks.worker import Answer, Failed, serve

LIMIT = 900  # seconds for one answer
NEW = multiprocessing.get_context("spawn")


class Client:
    """The process of one program, as the parent sees it."""

    def __init__(self, entry: Entry, backend: str, device: str, folder: Path) -> None:
        folder.mkdir()
        self.entry, self.log = entry, folder / "log"
        self.pipe, theirs = NEW.Pipe()
        settings = environment(backend, device, folder)
        self.process = NEW.Process(target=serve, args=(theirs, str(self.log), settings))
        self.process.start()
        theirs.close()

    def tell(self, do: str, **arguments: Any) -> None:
        """Sends a command."""
        try:
            self.pipe.send((do, arguments))
        except BrokenPipeError:
            raise Failed(f"ended: {tail(self.log)}") from None

    def answer(self) -> Answer:
        """The next answer, which it waits for."""
        if not self.pipe.poll(LIMIT):
            raise Failed(f"no answer in {LIMIT} s")
        try:
            found = self.pipe.recv()
        except (EOFError, ConnectionError):
            raise Failed(f"ended: {tail(self.log)}") from None
        if isinstance(found, Failed):
            raise found
        return found

    def ask(self, do: str, **arguments: Any) -> Answer:
        """Sends a command and waits for its answer."""
        self.tell(do, **arguments)
        return self.answer()

    def close(self) -> None:
        """Ends the process."""
        self.process.kill()
        self.process.join()
        self.pipe.close()


def environment(backend: str, device: str, folder: Path) -> dict[str, str]:
    """The environment of a worker: nobody's settings, and nothing compiled before."""
    os.environ.pop("JAX_COMPILATION_CACHE_DIR", None)
    found = {"KERAS_BACKEND": backend, "TF_CPP_MIN_LOG_LEVEL": "2"}
    for name in ("KERAS_HOME", "TORCHINDUCTOR_CACHE_DIR", "TRITON_CACHE_DIR"):
        found[name] = str(folder / name.lower())
    if device == "cpu":
        return found | {"CUDA_VISIBLE_DEVICES": "", "JAX_PLATFORMS": "cpu"}
    return found | {"XLA_PYTHON_CLIENT_PREALLOCATE": "false"}


def tail(log: Path) -> str:
    """The last line that a process wrote."""
    lines = [line for line in log.read_text(errors="replace").splitlines() if line.strip()]
    return lines[-1] if lines else "without a word"

"""The parent's side of a worker: its process, its commands, its answers."""

import json
import os
import select
import subprocess
import sys
from pathlib import Path
from typing import Any

from benchmarks.catalog import Entry

LIMIT = 900  # seconds for one answer


class Failed(Exception):
    """A program ended, or answered with an error."""


class Client:
    """The process of one program, as the parent sees it."""

    def __init__(self, entry: Entry, setting: dict[str, Any], folder: Path) -> None:
        folder.mkdir()
        self.entry, self.log = entry, folder / "log"
        asked = json.dumps(setting | {"path": entry.path, "options": entry.options})
        with open(self.log, "w") as errors:
            self.process = subprocess.Popen(
                [sys.executable, "-m", "benchmarks.worker", asked],
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=errors,
                text=True,
                env=environment(setting["backend"], setting["device"], folder),
            )

    def ask(self, do: str, **arguments: Any) -> dict[str, Any]:
        """Sends a command and waits for its answer."""
        try:
            self.process.stdin.write(json.dumps({"do": do} | arguments) + "\n")
            self.process.stdin.flush()
        except BrokenPipeError:
            raise Failed(f"ended: {tail(self.log)}") from None
        return self.answer()

    def answer(self) -> dict[str, Any]:
        """The next answer."""
        if not select.select([self.process.stdout], [], [], LIMIT)[0]:
            raise Failed(f"no answer in {LIMIT} s")
        line = self.process.stdout.readline()
        if not line:
            raise Failed(f"ended: {tail(self.log)}")
        found = json.loads(line)
        if "error" in found:
            raise Failed(found["error"])
        return found

    def close(self) -> None:
        """Ends the process."""
        self.process.kill()
        self.process.wait()
        self.process.stdin.close()
        self.process.stdout.close()


def environment(backend: str, device: str, folder: Path) -> dict[str, str]:
    """The environment of a worker: nobody's settings, and nothing compiled before."""
    found = os.environ | {"KERAS_BACKEND": backend, "TF_CPP_MIN_LOG_LEVEL": "2"}
    found.pop("JAX_COMPILATION_CACHE_DIR", None)
    for name in ("KERAS_HOME", "TORCHINDUCTOR_CACHE_DIR", "TRITON_CACHE_DIR"):
        found[name] = str(folder / name.lower())
    if device == "cpu":
        return found | {"CUDA_VISIBLE_DEVICES": "", "JAX_PLATFORMS": "cpu"}
    return found | {"XLA_PYTHON_CLIENT_PREALLOCATE": "false"}


def tail(log: Path) -> str:
    """The last line that a process wrote."""
    lines = [line for line in log.read_text(errors="replace").splitlines() if line.strip()]
    return lines[-1] if lines else "without a word"

"""The process of one program, from both sides of the pipe through which it is told what to do."""

import contextlib
import importlib
import multiprocessing
import os
import random
import resource
import time
import traceback
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks.catalog import Entry
from benchmarks.data import load
from benchmarks.program import Program, Segment, waiter
from benchmarks.workloads import WORKLOADS

LIMIT = 900  # seconds for one answer
NEW = multiprocessing.get_context("spawn")
Answer = dict[str, Any]


class Failed(Exception):
    """A program ended, or met an error."""


class Client:
    """The process of one program, as the parent sees it. What libraries print goes into a log."""

    def __init__(self, entry: Entry, folder: Path, backend: str, device: str, **more: Any) -> None:
        folder.mkdir()
        self.entry, self.log = entry, folder / "log"
        self.pipe, theirs = NEW.Pipe()
        settings = environment(backend, device, folder)
        opened = {"path": entry.path, "options": entry.options, "backend": backend}
        opened |= more | {"device": device}
        self.process = NEW.Process(target=serve, args=(theirs, self.log, settings, opened))
        self.process.start()
        theirs.close()

    def ask(self, do: str, **arguments: Any) -> Answer:
        """Sends a command and waits for its answer."""
        with contextlib.suppress(BrokenPipeError):
            self.pipe.send((do, arguments))
        return self.answer()

    def answer(self) -> Answer:
        if not self.pipe.poll(LIMIT):
            raise Failed(f"no answer in {LIMIT} s")
        try:
            found = self.pipe.recv()
        except (EOFError, ConnectionError):
            lines = self.log.read_text(errors="replace").split("\n") if self.log.exists() else []
            raise Failed(f"ended: {' '.join(lines[-3:])}") from None
        if isinstance(found, Failed):
            raise found
        return found

    def close(self) -> None:
        """Ends the process: by itself, unless it hangs."""
        self.pipe.close()
        self.process.join(10)
        self.process.kill()
        self.process.join()


def environment(backend: str, device: str, folder: Path) -> dict[str, str]:
    """The environment of a program: nobody's settings, and nothing compiled before."""
    found = {"KERAS_BACKEND": backend, "TF_CPP_MIN_LOG_LEVEL": "2"}
    found["JAX_ENABLE_COMPILATION_CACHE"] = "false"
    for name in ("KERAS_HOME", "TORCHINDUCTOR_CACHE_DIR", "TRITON_CACHE_DIR"):
        found[name] = str(folder / name.lower())
    if device == "cpu":
        return found | {"CUDA_VISIBLE_DEVICES": "", "JAX_PLATFORMS": "cpu"}
    return found | {"XLA_PYTHON_CLIENT_PREALLOCATE": "false"}


def serve(pipe: Any, log: Path, settings: dict[str, str], opened: dict[str, Any]) -> None:
    """Opens a program and does what it is told until the process ends."""
    with open(log, "w") as file:
        os.dup2(file.fileno(), 1)
        os.dup2(file.fileno(), 2)
    os.environ.update(settings)
    worker, do, arguments = Worker(), "open", opened
    while True:
        try:
            pipe.send(getattr(worker, do)(**arguments))
        except Exception as error:
            traceback.print_exc()
            pipe.send(Failed(f"{type(error).__name__}: {error}"))
        do, arguments = pipe.recv()


class Worker:
    """The program itself with its data, and the number of steps it has trained."""

    program: Program
    done = 0

    def open(self, path: str, workload: str, data: Path, **given: Any) -> Answer:
        """Makes the program, without its networks."""
        prepare(given["backend"], given["device"])
        module, name = path.split(":")
        program = getattr(importlib.import_module(f"benchmarks.peers.{module}"), name)
        found = WORKLOADS[workload]
        self.program = program(found, load(found, data), **given)
        self.batches = self.program.batches()
        self.wait = waiter(given["backend"], given["device"])
        return {}

    def segment(self, steps: int) -> Segment:
        start, self.done = self.done, self.done + steps
        return Segment(self.batches, steps, start, self.program.every, self.wait)

    def first(self) -> Answer:
        """Builds, and trains one step; the seconds that took."""
        start = time.perf_counter()
        self.program.build()
        losses = self.program.train(self.segment(self.program.every))
        found = {"first_step_s": time.perf_counter() - start, "loss_first": losses}
        return found | {"parameters": self.program.parameters()}

    def run(self, steps: int) -> Answer:
        """Trains a segment; the seconds per step within it."""
        segment, start = self.segment(steps), time.perf_counter()
        losses = self.program.train(segment)
        whole = time.perf_counter() - start
        found = {"seconds": segment.seconds(), "whole": whole, "losses": losses}
        return found | {"memory": memory(self.program.backend, self.program.device)}

    def operations(self) -> Answer:
        steps = self.program.every
        return {"operations": self.program.operations(self.segment(steps)) / steps}


def prepare(backend: str, device: str) -> None:
    """Imports the backend and seeds all draws; what programs of a backend share is settled here."""
    random.seed(0)  # Keras draws its seeds from here
    np.random.seed(0)
    found = importlib.import_module(backend)
    if backend == "torch":
        found.manual_seed(0)
        found.backends.cudnn.benchmark = device == "gpu"


def memory(backend: str, device: str) -> dict[str, float]:
    """Peaks in MiB: of the process, and of the GPU."""
    found = {"process": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**10}
    if device == "gpu" and backend == "torch":
        found["gpu"] = importlib.import_module("torch").cuda.max_memory_allocated() / 2**20
    if device == "gpu" and backend == "jax":
        stats = importlib.import_module("jax").devices()[0].memory_stats() or {}
        found["gpu"] = stats.get("peak_bytes_in_use", 0) / 2**20
    return found

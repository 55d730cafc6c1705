"""The process of one program. It does what it is told through a pipe, and sends back what it found.

`open` makes the program, `first` builds it and trains one step, `run` trains a segment, and
`operations` counts. What libraries print goes into a log.
"""

import importlib
import os
import random
import resource
import time
import traceback
from multiprocessing.connection import Connection
from typing import Any

import numpy as np

from benchmarks import data, feeds
from benchmarks.clock import Clock
from benchmarks.program import Program
from benchmarks.workloads import WORKLOADS

Answer = dict[str, Any]


class Failed(Exception):
    """A program ended, or met an error."""


class Worker:
    """A program with its data, and the number of steps it has trained."""

    program: Program

    def open(self, path: str, workload: str, backend: str, device: str, **more: Any) -> Answer:
        """Makes the program, without its networks."""
        prepare(backend, device)
        found = WORKLOADS[workload]
        given = (found, data.load(found, more["data"]), backend, device, more["options"])
        module, name = path.split(":")
        self.program = getattr(importlib.import_module(module), name)(*given)
        self.batches, self.wait = self.program.batches(), feeds.waiter(backend, device)
        self.done = 0
        return {}

    def segment(self, steps: int) -> feeds.Segment:
        """The next batches."""
        clock = Clock(steps, self.program.every, self.wait)
        start, self.done = self.done, self.done + steps
        return feeds.Segment(self.batches, steps, start, clock)

    def first(self) -> Answer:
        """Builds, and trains one step; the seconds that took."""
        start = time.perf_counter()
        self.program.build()
        losses = self.program.train(self.segment(self.program.every))
        seconds = time.perf_counter() - start
        return {"seconds": seconds, "losses": losses, "parameters": self.program.parameters()}

    def run(self, steps: int) -> Answer:
        """Trains a segment; the seconds per step within it."""
        segment, start = self.segment(steps), time.perf_counter()
        losses = self.program.train(segment)
        whole = time.perf_counter() - start
        answer = {"seconds": segment.clock.seconds(), "whole": whole, "losses": losses}
        return answer | {"memory": memory(self.program.backend, self.program.device)}

    def operations(self) -> Answer:
        """Floating-point operations of one step."""
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


def serve(pipe: Connection, log: str, settings: dict[str, str]) -> None:
    """Does what it is told until the process ends; `settings` are variables of the environment."""
    with open(log, "w") as file:
        os.dup2(file.fileno(), 1)
        os.dup2(file.fileno(), 2)
    os.environ.update(settings)
    worker = Worker()
    while True:
        do, arguments = pipe.recv()
        try:
            pipe.send(getattr(worker, do)(**arguments))
        except Exception as error:
            traceback.print_exc()
            pipe.send(Failed(f"{type(error).__name__}: {error}"))

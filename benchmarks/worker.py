"""The process of one program. It is told what to do by lines of JSON, and answers with such lines.

    python -m benchmarks.worker '{"path": ..., "workload": ..., ...}'

`first` builds the program and trains one step, `run` trains a segment, `operations` counts. What
libraries print goes where their warnings go.
"""

import importlib
import json
import os
import random
import resource
import sys
import time
import traceback
from typing import Any

import numpy as np

from benchmarks import data, feeds
from benchmarks.clock import Clock
from benchmarks.program import Program, Setting
from benchmarks.workloads import WORKLOADS


class Worker:
    """A program with its data, and the number of steps it has trained."""

    def __init__(self, path: str, workload: str, backend: str, device: str, **more: Any) -> None:
        prepare(backend, device)
        found = WORKLOADS[workload]
        batches = data.load(found, more["data"])
        module, name = path.split(":")
        setting = Setting(found, batches, backend, device, more["options"])
        self.program: Program = getattr(importlib.import_module(module), name)(setting)
        self.batches, self.wait = self.program.batches(), feeds.waiter(backend, device)
        self.backend, self.device, self.done = backend, device, 0

    def segment(self, steps: int) -> feeds.Segment:
        """The next batches."""
        clock = Clock(steps, self.program.every, self.wait)
        start, self.done = self.done, self.done + steps
        return feeds.Segment(self.batches, steps, start, clock)

    def first(self) -> dict[str, Any]:
        """Builds, and trains one step; the seconds that took."""
        start = time.perf_counter()
        self.program.build()
        losses = self.program.train(self.segment(self.program.every))
        seconds = time.perf_counter() - start
        return {"seconds": seconds, "losses": losses, "parameters": self.program.parameters()}

    def run(self, steps: int) -> dict[str, Any]:
        """Trains a segment; the seconds per step within it."""
        segment, start = self.segment(steps), time.perf_counter()
        losses = self.program.train(segment)
        whole = time.perf_counter() - start
        answer = {"seconds": segment.clock.seconds(), "whole": whole, "losses": losses}
        return answer | {"memory": memory(self.backend, self.device)}

    def operations(self) -> dict[str, Any]:
        """Floating-point operations of one step."""
        steps = self.program.every
        found = self.program.operations(self.segment(steps))
        return {"operations": found and found / steps}


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


def main() -> None:
    """Answers until there are no more lines."""
    answers = os.fdopen(os.dup(1), "w", buffering=1)
    os.dup2(2, 1)

    def answered(act: Any) -> None:
        try:
            found = act()
        except Exception as error:
            traceback.print_exc()
            found = {"error": f"{type(error).__name__}: {error}"}
        answers.write(json.dumps(found) + "\n")

    workers: list[Worker] = []
    answered(lambda: workers.append(Worker(**json.loads(sys.argv[1]))) or {})
    for line in sys.stdin:
        command = json.loads(line)
        answered(lambda c=command: getattr(workers[0], c.pop("do"))(**c))


if __name__ == "__main__":
    main()

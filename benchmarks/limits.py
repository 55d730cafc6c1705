"""What limits the step of each workload, and how near it comes to the limit of the machine.

    KERAS_BACKEND=torch python -m benchmarks.limits --workload mlp,vae,dcgan,wgan_gp,byol

Prints the floating-point operations that a step reaches in a second, beside a plain product of two
matrices of 1,024 x 1,024 numbers of the same type, which takes turns with the step. A profile of
the same steps tells how the time of operations is shared. What is left of the step's time is the
host: Python, and what it waits for. Runs on torch and jax, on one thread, on a CPU.
"""

import argparse
import collections
import importlib
import os
import statistics
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

from benchmarks import data
from benchmarks.worker import Worker
from benchmarks.workloads import WORKLOADS

# Read when torch and jax are imported, later.
os.environ |= {"OMP_NUM_THREADS": "1", "CUDA_VISIBLE_DEVICES": "", "JAX_PLATFORMS": "cpu"}
os.environ["XLA_FLAGS"] = "--xla_cpu_multi_thread_eigen=false"
BACKEND = os.environ.get("KERAS_BACKEND", "")
OURS = "keras_fit:MLSystem"
COUNTED = {"torch": (OURS, {"run_eagerly": True}), "jax": ("raw_jax:RawJax", {})}
SIZE = 1024  # rows and columns of the plain product
# Parts of the names of operations. "ynn" holds what XLA gives to a library for products.
KINDS = {"convolutions": ("conv",), "products": ("mm", "dot", "matmul", "ynn", "linear")}
# Events that hold others, or wait for them.
PASSES = ("Thunk", "end:", "SlinkyThreadPool", "H2D", "while", "cond", "call")


def opened(name: str, folder: Path, path: str, options: dict[str, Any]) -> Worker:
    """Return a program that has trained its first steps, and compiled."""
    file = folder / f"{name}.npz"
    data.save(WORKLOADS[name], "cpu", file)
    worker = Worker()
    worker.open(path, name, file, backend=BACKEND, device="cpu", options=options)
    worker.first()
    return worker


def product() -> Callable[[], object]:
    """Return a function that multiplies two matrices, and waits for the result."""
    if BACKEND == "torch":
        import torch

        one = torch.ones(SIZE, SIZE)
        return lambda: one @ one
    import jax

    two = jax.numpy.ones((SIZE, SIZE))
    multiply = jax.jit(jax.numpy.matmul)
    return lambda: multiply(two, two).block_until_ready()


def speed_of(multiply: Callable[[], object], times: int = 8) -> float:
    """Return the operations in a second of the plain product."""
    start = time.perf_counter()
    for _ in range(times):
        multiply()
    return 2 * SIZE**3 * times / (time.perf_counter() - start)


def operations_of_torch(run: Callable[[], object]) -> Iterator[tuple[str, float]]:
    """Yield names of operations, and seconds in each without those that it calls."""
    from torch.profiler import ProfilerActivity, profile

    with profile(activities=[ProfilerActivity.CPU]) as found:
        run()
    for event in found.key_averages():
        if event.key.startswith("aten::"):
            yield event.key, event.self_cpu_time_total / 1e6


def operations_of_jax(run: Callable[[], object]) -> Iterator[tuple[str, float]]:
    """Yield names of operations of the compiled step, and seconds in each."""
    import jax

    with tempfile.TemporaryDirectory() as folder:
        with jax.profiler.trace(folder):
            run()
        (path,) = Path(folder).rglob("*.xplane.pb")
        planes = jax.profiler.ProfileData.from_file(str(path)).planes
        lines = [line for plane in planes for line in plane.lines if "XLA" in line.name]
    for event in (event for line in lines for event in line.events):
        if not event.name.startswith(PASSES):
            yield event.name, event.duration_ns / 1e9


OPERATIONS = {"torch": operations_of_torch, "jax": operations_of_jax}


def shares(worker: Worker, steps: int) -> dict[str, float]:
    """Return the shares of the time of some steps by kind of operation."""
    found: collections.Counter[str] = collections.Counter()
    times: list[float] = []
    for name, seconds in OPERATIONS[BACKEND](lambda: times.append(worker.run(steps)["seconds"])):
        found[kind(name)] += seconds
    return {name: found[name] / times[0] / steps for name in (*KINDS, "other")}


def kind(operation: str) -> str:
    """Return the kind of an operation."""
    return next((k for k, parts in KINDS.items() if any(p in operation for p in parts)), "other")


def measure(name: str, folder: Path, rounds: int) -> str:
    """Return the row of a workload."""
    steps = WORKLOADS[name].steps["cpu"]
    worker, counted = opened(name, folder, OURS, {}), opened(name, folder, *COUNTED[BACKEND])
    operations, multiply = counted.operations()["operations"], product()
    worker.run(steps)
    found = [(worker.run(steps)["seconds"], speed_of(multiply)) for _ in range(rounds)]
    seconds = statistics.median(pair[0] for pair in found)
    near = statistics.median(operations / own / plain for own, plain in found)
    parts = " | ".join(f"{share:.0%}" for share in shares(worker, steps).values())
    speed = f"{operations / 1e6:.1f} | {operations / seconds / 1e9:.1f} | {near:.0%}"
    return f"| {BACKEND} {name} | {seconds * 1e3:.2f} | {speed} | {parts} |"


def main(names: list[str], rounds: int) -> None:
    """Print a row for each workload."""
    importlib.import_module(BACKEND)
    print("| | ms/step | MFLOP/step | GFLOP/s | of the product | convolutions | products | other |")
    print("| --- | ---: | ---: | ---: | ---: | ---: | ---: | ---: |")
    with tempfile.TemporaryDirectory() as folder:
        for name in names:
            print(measure(name, Path(folder), rounds), flush=True)


if __name__ == "__main__":
    parser = argparse.ArgumentParser()
    parser.add_argument("--workload", default="mlp,vae,dcgan,wgan_gp,byol")
    parser.add_argument("--rounds", type=int, default=5)
    given = parser.parse_args()
    main(given.workload.split(","), given.rounds)

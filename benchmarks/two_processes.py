"""Steps per second of two processes beside one process with half the batch.

    KERAS_BACKEND=torch python -m benchmarks.two_processes --rounds 5

One process with half the batch computes as much as each of the two, and exchanges nothing. So the
efficiency of two processes is the time of one process divided by their time. Two processes apart
do not know of each other, and show what they lose because they share memory and caches. Each round
measures one process, two apart, and two together, on one thread each. Give the machine two idle
cores. If it has other work, the CPU seconds of a step tell what the exchange costs, without the
time of waiting.
"""

import argparse
import itertools
import json
import os
import resource
import socket
import statistics
import subprocess
import sys
import time

ROWS, WIDTH, STEPS = 4096, 512, 8  # rows of each process


def worker() -> None:
    """Train one of the processes. Print the seconds and the CPU seconds of a step."""
    import mlsystem as ml

    ml.distribute()

    import keras
    import numpy as np

    class Clock(keras.callbacks.Callback):
        def __init__(self) -> None:
            super().__init__()
            self.times: list[tuple[float, float]] = []

        def on_train_batch_end(self, batch: int, logs: object = None) -> None:
            used = resource.getrusage(resource.RUSAGE_SELF)
            self.times.append((time.perf_counter(), used.ru_utime + used.ru_stime))

    rows = ROWS * ml.process_count()
    net = keras.Sequential([keras.layers.Dense(WIDTH, "relu") for _ in range(3)])
    model, clock = ml.MLModel(net, loss="mse", optimizer="sgd"), Clock()
    x = np.random.default_rng(0).normal(size=(rows * STEPS, WIDTH)).astype("float32")
    model.fit(x, x, batch_size=rows, shuffle=False, verbose=0, callbacks=[clock])
    later = clock.times[2:]  # the first steps compile
    steps = itertools.pairwise(later)
    found = [(end - start, used - before) for (start, before), (end, used) in steps]
    print(json.dumps([statistics.median(column) for column in zip(*found, strict=True)]))


def measure(count: int, apart: bool = False) -> tuple[float, float]:
    """Return the seconds and the CPU seconds of a step of some processes: the largest of them."""
    ports = [free_port() for _ in range(count)]
    known = ports[:1] if apart else ports
    command = [sys.executable, "-m", "benchmarks.two_processes", "--worker"]
    started = [
        subprocess.Popen(command, env=os.environ | told(i, known), stdout=subprocess.PIPE)
        for i in range(count)
    ]
    texts = [process.communicate(timeout=600)[0].decode() for process in started]
    found = [json.loads(text.splitlines()[-1]) for text in texts]
    return max(wall for wall, _ in found), max(cpu for _, cpu in found)


def told(index: int, ports: list[int]) -> dict[str, str]:
    """Return what a launcher tells a process, on this machine."""
    own = {"OMP_NUM_THREADS": "1", "GLOO_SOCKET_IFNAME": "lo", "CUDA_VISIBLE_DEVICES": ""}
    own |= {"XLA_FLAGS": "--xla_cpu_multi_thread_eigen=false", "TF_NUM_INTRAOP_THREADS": "1"}
    if len(ports) == 1:
        return own
    workers = {"worker": [f"127.0.0.1:{port}" for port in ports]}
    config = {"cluster": workers, "task": {"type": "worker", "index": index}}
    return own | {"TF_CONFIG": json.dumps(config)}


def free_port() -> int:
    """Return a port that nobody listens to."""
    with socket.socket() as one:
        one.bind(("127.0.0.1", 0))
        return int(one.getsockname()[1])


def main(rounds: int) -> None:
    """Measure in turns and print the medians."""
    ratios: dict[str, list[tuple[float, ...]]] = {"one": [], "two apart": []}
    for _ in range(rounds):
        found = {"one": measure(1), "two apart": measure(2, apart=True), "two": measure(2)}
        for name, all_ratios in ratios.items():
            pairs = zip(found[name], found["two"], strict=True)
            all_ratios.append(tuple(before / after for before, after in pairs))
        texts = [f"{name} {wall:.3f} s (CPU {cpu:.3f})" for name, (wall, cpu) in found.items()]
        print(", ".join(texts), flush=True)
    for name, rounds_of in ratios.items():
        for i, what in enumerate(("seconds", "CPU seconds")):
            values = [ratio[i] for ratio in rounds_of]
            spread = f"({min(values):.2f} to {max(values):.2f})"
            print(f"{what} of {name} / two: {statistics.median(values):.2f} {spread}")


if __name__ == "__main__":
    parser = argparse.ArgumentParser()
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--worker", action="store_true")
    given = parser.parse_args()
    worker() if given.worker else main(given.rounds)

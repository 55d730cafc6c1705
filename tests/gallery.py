"""Run every example in full on each backend. Print its figures and its seconds.

`python tests/gallery.py [NAME ...]`, which `tox -e gallery` calls. The pictures of the examples go
to `examples/pictures`. Each run is a process of its own, so the seconds include imports and
compilation. CPU seconds are those of all threads. Other programs hardly change them.
"""

import os
import resource
import subprocess
import sys
import time
from pathlib import Path

EXAMPLES = Path(__file__).parents[1] / "examples"
BACKENDS = ("jax", "torch", "tensorflow")


def run(name, backend):
    """What one example printed, its exit code, its seconds and its CPU seconds."""
    start, before = time.perf_counter(), cpu_seconds()
    done = subprocess.run(
        [sys.executable, f"{name}.py"],
        cwd=EXAMPLES,
        env=os.environ | {"KERAS_BACKEND": backend},
        capture_output=True,
        text=True,
    )
    return done, time.perf_counter() - start, cpu_seconds() - before


def cpu_seconds():
    used = resource.getrusage(resource.RUSAGE_CHILDREN)
    return used.ru_utime + used.ru_stime


def said(done):
    """The last lines of what an example printed, or of its error."""
    text = done.stderr if done.returncode else done.stdout
    lines = text.strip().splitlines()
    return lines[-8:] if done.returncode else [line for line in lines if "/step" not in line][-6:]


def main(names):
    failed = []
    for name in names or sorted(path.stem for path in EXAMPLES.glob("*.py")):
        for backend in BACKENDS:
            done, seconds, cpu = run(name, backend)
            head = f"{name} on {backend}: {seconds:.0f} s, {cpu:.0f} s of CPU"
            print(head, *said(done), sep="\n    ", flush=True)
            failed += [f"{name} on {backend}"] * (done.returncode != 0)
    sys.exit(f"failed: {', '.join(failed)}" if failed else 0)


if __name__ == "__main__":
    main(sys.argv[1:])

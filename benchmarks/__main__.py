"""Runs the benchmarks.

Each program runs in a process of its own, and those of one backend and workload take turns.
"""

import argparse
import importlib.util
import sys
from pathlib import Path

from benchmarks import report, targets
from benchmarks.turns import Group
from benchmarks.workloads import SETS, WORKLOADS

BACKENDS = {"cpu": "torch,jax,tensorflow", "gpu": "torch,jax"}


def arguments() -> argparse.Namespace:
    """What the command line says."""
    parser = argparse.ArgumentParser("python -m benchmarks", description=__doc__.split("\n")[0])
    names = f"of {', '.join(WORKLOADS)}, and data_path for all sources of data"
    parser.add_argument("--device", choices=["cpu", "gpu"], default="cpu")
    parser.add_argument("--backend", help="of torch, jax and tensorflow, with commas between")
    parser.add_argument("--workload", help=f"{names}, with commas between")
    parser.add_argument("--program", help="parts of the names of programs, with commas between")
    parser.add_argument("--rounds", type=int, help="segments of each program that count")
    parser.add_argument("--steps", type=int, help="steps in a segment")
    parser.add_argument("--json", type=Path, default=Path("benchmarks/results.json"))
    parser.add_argument("--quick", action="store_true", help="one round of few steps")
    found = parser.parse_args()
    found.steps = found.steps or (6 if found.quick else None)
    found.rounds = found.rounds or (1 if found.quick else {"cpu": 7, "gpu": 5}[found.device])
    return found


def chosen(text: str, known: list[str]) -> list[str]:
    """The names in an argument, and in the sets of workloads that it names."""
    names = [name for part in text.split(",") for name in SETS.get(part, [part])]
    if unknown := set(names) - set(known):
        sys.exit(f"unknown: {', '.join(sorted(unknown))}; there are {', '.join(known)}")
    return names


def groups(given: argparse.Namespace) -> list[Group]:
    """What to run."""
    backends = chosen(given.backend or BACKENDS[given.device], BACKENDS["cpu"].split(","))
    names = chosen(given.workload or given.device, list(WORKLOADS))
    for backend in [b for b in backends if importlib.util.find_spec(b) is None]:
        print(f"left out: {backend} is not installed")
        backends.remove(backend)
    return [Group(backend, WORKLOADS[name], given) for backend in backends for name in names]


def main() -> int:
    """Runs, prints and writes; 1 where networks differ or a program failed."""
    given, done = arguments(), []
    for group in groups(given):
        group.measure()
        done.append(group)
        print(report.group_tables(group), flush=True)
        report.write(done, given.json)
    print(report.target_table([target for group in done for target in targets.check(group)]))
    return int(any(group.failed or report.mismatches(group) for group in done))


if __name__ == "__main__":
    sys.exit(main())

"""Runs the benchmarks.

    python -m benchmarks --backend torch,jax --workload dcgan --rounds 7
    python -m benchmarks --device gpu

Each program runs in a process of its own, and those of one backend and workload take turns.
"""

import argparse
import importlib.util
import sys
from pathlib import Path

from benchmarks import ratios, report, speed, targets
from benchmarks.turns import Group, Plan
from benchmarks.workloads import EVERY, WORKLOADS

BACKENDS = {"cpu": ["torch", "jax", "tensorflow"], "gpu": ["torch", "jax"]}


def arguments() -> argparse.Namespace:
    """What the command line says."""
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks", description=__doc__.split("\n")[0]
    )
    parser.add_argument("--device", choices=["cpu", "gpu"], default="cpu")
    parser.add_argument("--backend", help="of torch, jax and tensorflow, with commas between")
    parser.add_argument("--workload", help=f"of {', '.join(WORKLOADS)}, with commas between")
    parser.add_argument("--program", help="parts of the names of programs, with commas between")
    parser.add_argument("--rounds", type=int, help="segments of each program that count")
    parser.add_argument("--steps", type=int, help="steps in a segment")
    parser.add_argument("--json", type=Path, default=Path("benchmarks/results.json"))
    parser.add_argument("--quick", action="store_true", help="one round of few steps")
    return parser.parse_args()


def chosen(text: str | None, known: list[str], default: list[str]) -> list[str]:
    """The names in an argument."""
    names = text.split(",") if text else default
    if unknown := set(names) - set(known):
        sys.exit(f"unknown: {', '.join(sorted(unknown))}; there are {', '.join(known)}")
    return names


def groups(given: argparse.Namespace) -> list[Group]:
    """What to run."""
    backends = chosen(given.backend, BACKENDS["cpu"], BACKENDS[given.device])
    names = chosen(given.workload, list(WORKLOADS), EVERY[given.device])
    for backend in [b for b in backends if importlib.util.find_spec(b) is None]:
        print(f"left out: {backend} is not installed")
        backends.remove(backend)
    steps = given.steps or (6 if given.quick else None)
    wanted = given.program.split(",") if given.program else [""]
    plan = Plan(given.device, steps, tuple(wanted))
    return [Group(b, WORKLOADS[name], plan) for b in backends for name in names]


def main() -> int:
    """Runs, prints and writes; 1 where networks differ or a program failed."""
    given, done = arguments(), []
    rounds = given.rounds or (1 if given.quick else {"cpu": 7, "gpu": 5}[given.device])
    for group in groups(given):
        group.measure(rounds)
        speed.add(group)
        done.append(group)
        print(report.group_tables(group), flush=True)
        report.write(done, given.json)
    print(report.target_table([target for group in done for target in targets.check(group)]))
    failed = any("failed" in text for group in done for text in group.left_out.values())
    return int(failed or any(ratios.mismatches(group) for group in done))


if __name__ == "__main__":
    sys.exit(main())

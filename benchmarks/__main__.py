"""Runs the benchmarks.

    python -m benchmarks --backend torch,jax --workload dcgan --rounds 7
    python -m benchmarks --device gpu

Each program runs in a process of its own, and those of one backend and workload take turns.
"""

import argparse
import sys

from benchmarks import command_line, ratios, report, targets
from benchmarks.turns import Group, Plan
from benchmarks.workloads import EVERY, WORKLOADS


def arguments() -> argparse.Namespace:
    """What the command line says."""
    found = command_line.parser("benchmarks", __doc__)
    found.add_argument("--workload", help=f"of {', '.join(WORKLOADS)}, with commas between")
    found.add_argument("--program", help="parts of the names of programs, with commas between")
    return found.parse_args()


def groups(given: argparse.Namespace) -> list[Group]:
    """What to run."""
    names = command_line.chosen(given.workload, list(WORKLOADS), EVERY[given.device])
    steps = given.steps or (6 if given.quick else None)
    wanted = given.program.split(",") if given.program else [""]
    plan = Plan(given.device, steps, tuple(wanted))
    backends = command_line.backends(given)
    return [Group(b, WORKLOADS[name], plan) for b in backends for name in names]


def main() -> int:
    """Runs, prints and writes; 1 where networks differ or a program failed."""
    given, done = arguments(), []
    for group in groups(given):
        group.measure(command_line.rounds(given))
        done.append(group)
        print(report.group_tables(group), flush=True)
        report.write(done, given.json)
    print(report.target_table([target for group in done for target in targets.check(group)]))
    return int(any(group.failed or ratios.mismatches(group) for group in done))


if __name__ == "__main__":
    sys.exit(main())

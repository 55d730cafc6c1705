"""The options that `benchmarks` and `benchmarks.data_path` share."""

import argparse
import importlib.util
import sys
from pathlib import Path

BACKENDS = {"cpu": ["torch", "jax", "tensorflow"], "gpu": ["torch", "jax"]}


def parser(module: str, doc: str) -> argparse.ArgumentParser:
    """The options that both take."""
    found = argparse.ArgumentParser(prog=f"python -m {module}", description=doc.split("\n")[0])
    found.add_argument("--device", choices=["cpu", "gpu"], default="cpu")
    found.add_argument("--backend", help="of torch, jax and tensorflow, with commas between")
    found.add_argument("--rounds", type=int, help="segments of each program that count")
    found.add_argument("--steps", type=int, help="steps in a segment")
    found.add_argument("--json", type=Path, default=Path("benchmarks/results.json"))
    found.add_argument("--quick", action="store_true", help="one round of few steps")
    return found


def chosen(text: str | None, known: list[str], default: list[str]) -> list[str]:
    """The names in an argument."""
    names = text.split(",") if text else default
    if unknown := set(names) - set(known):
        sys.exit(f"unknown: {', '.join(sorted(unknown))}; there are {', '.join(known)}")
    return names


def backends(given: argparse.Namespace) -> list[str]:
    """The backends that were asked for, without those that are missing."""
    names = chosen(given.backend, BACKENDS["cpu"], BACKENDS[given.device])
    missing = [name for name in names if importlib.util.find_spec(name) is None]
    for name in missing:
        print(f"left out: {name} is not installed")
    return [name for name in names if name not in missing]


def rounds(given: argparse.Namespace) -> int:
    """The number of segments of each program that count."""
    return given.rounds or (1 if given.quick else {"cpu": 7, "gpu": 5}[given.device])

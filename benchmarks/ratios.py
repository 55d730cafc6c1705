"""Ratios of time per step, each taken within a round, and checks that programs are alike."""

import statistics
from typing import Any

from benchmarks.turns import Group


def spread(values: list[float]) -> dict[str, float]:
    """Median and range."""
    return {"median": statistics.median(values), "low": min(values), "high": max(values)}


def table(group: Group) -> dict[str, dict[str, dict[str, float]]]:
    """The ratio of each program of mlsystem to each peer: `{peer: {ours: ratio}}`."""
    ours = {name: result for name, result in group.results.items() if result["is_ours"]}
    peers = {name: result for name, result in group.results.items() if name not in ours}
    return {
        peer: {name: _between(our, their) for name, our in ours.items()}
        for peer, their in peers.items()
    }


def _between(ours: dict[str, Any], theirs: dict[str, Any]) -> dict[str, float]:
    return spread([a / b for a, b in zip(ours["seconds"], theirs["seconds"], strict=True)])


def mismatches(group: Group) -> list[str]:
    """The programs whose networks have other numbers of weights than the first one."""
    found = [(name, result["parameters"]) for name, result in group.results.items()]
    return [f"{name}: {count}, not {found[0][1]}" for name, count in found if count != found[0][1]]


def astray(group: Group, tolerance: float = 0.25) -> list[str]:
    """The programs whose loss did not fall, or not to where it fell in the others.

    The two losses of a game need not fall: they are left to the reader, as are the programs that
    had more steps than the others.
    """
    alone = {n: r for n, r in group.results.items() if list(r["loss_first"]) == ["loss"]}
    if not alone or group.workload.kind == "many":
        return []
    middle = statistics.median(r["loss_last"]["loss"] for r in alone.values())
    found = []
    for name, result in alone.items():
        first, last = result["loss_first"]["loss"], result["loss_last"]["loss"]
        alike = last < first and abs(last / middle - 1) <= tolerance
        if result["steps_per_segment"] == group.usual_steps and not alike:
            found.append(f"{name}: {first:.4g} to {last:.4g}, in the middle of all {middle:.4g}")
    return found

"""Tables for people, and JSON for programs."""

import importlib.metadata
import importlib.util
import json
import platform
import statistics
from operator import truediv
from pathlib import Path
from typing import Any

from benchmarks import targets
from benchmarks.turns import Group

PACKAGES = ("keras", "jax", "torch", "tensorflow", "lightning", "flax", "optax", "grain")
_HEAD = ["program", "ms/step", "range", "first step s", "then warm-up s", "peak MiB"]
_HEAD += ["weights", "loss, first step", "last segment"]


def group_tables(group: Group) -> str:
    """All that came out of one backend and workload."""
    load = group.workload
    lines = ["", f"## {group.backend}: {load.name} (batch {load.batch})", ""]
    lines += columns(_HEAD, [_row(result, name) for name, result in group.results.items()])
    if table := ratios(group):
        rows = [[f"/ {peer}", *map(_ratio, table[peer].values())] for peer in table]
        lines += ["", *columns(["time per step", *next(iter(table.values()))], rows)]
    lines += ["", "(ms per model and step)"] * (load.kind == "many")
    lines += [f"left out: {name}: {reason}" for name, reason in group.left_out.items()]
    lines += [f"PARAMETERS DIFFER: {text}" for text in mismatches(group)]
    return "\n".join([*lines, *(f"LOSSES DIFFER: {text}" for text in astray(group))])


def _row(result: dict[str, Any], name: str) -> list[str]:
    scale = 1e3 / result["models"]
    time = spread([scale * s for s in result["seconds"]])
    speed = f" ({result['tflops']:.1f} TFLOP/s)" if result.get("tflops") else ""
    row = [name, f"{time['median']:.3f}", f"{time['low']:.3f}-{time['high']:.3f}{speed}"]
    row += [f"{result['first_step_s']:.2f}", f"{result['warm_up_s']:.2f}"]
    row += ["+".join(f"{peak:.0f}" for peak in result["memory_mib"].values())]
    row += [f"{sum(result['parameters'].values()):,}"]
    return row + [_losses(result[key]) for key in ("loss_first", "loss_last")]


def _losses(losses: dict[str, float]) -> str:
    if list(losses) == ["loss"]:
        return f"{losses['loss']:.4g}"
    return " ".join(f"{name[0]}:{losses[name]:.3g}" for name in sorted(losses))


def _ratio(found: dict[str, float]) -> str:
    return f"{found['median']:.2f} ({found['low']:.2f}-{found['high']:.2f})"


def columns(head: list[str], rows: list[list[str]]) -> list[str]:
    """A table in Markdown, with columns that line up."""
    widths = [max(len(row[i]) for row in [head, *rows]) for i in range(len(head))]
    lines = [head, ["-" * width for width in widths], *rows]
    padded = [[cell.ljust(w) for cell, w in zip(row, widths, strict=True)] for row in lines]
    return [f"| {' | '.join(row)} |" for row in padded]


def spread(values: list[float]) -> dict[str, float]:
    """Median and range."""
    return {"median": statistics.median(values), "low": min(values), "high": max(values)}


def ratios(group: Group) -> dict[str, dict[str, dict[str, float]]]:
    """Ratios of time per step, each taken within a round: `{peer: {ours: ratio}}`."""
    ours = {n: r["seconds"] for n, r in group.results.items() if r["is_ours"]}
    peers = {n: r["seconds"] for n, r in group.results.items() if not r["is_ours"]}
    return {
        peer: {name: spread(list(map(truediv, our, their))) for name, our in ours.items()}
        for peer, their in peers.items()
    }


def mismatches(group: Group) -> list[str]:
    """The programs whose networks have other numbers of weights than the first one."""
    found = [(name, result["parameters"]) for name, result in group.results.items()]
    return [f"{name}: {count}, not {found[0][1]}" for name, count in found if count != found[0][1]]


def astray(group: Group, tolerance: float = 0.25) -> list[str]:
    """The programs whose loss did not fall, or not to where it fell in the others.

    The two losses of a game need not fall: they are left to the reader, as are the programs that
    had more steps than the others. Sources of data shuffle in their own ways.
    """
    alone = {n: r for n, r in group.results.items() if list(r["loss_first"]) == ["loss"]}
    if not alone or group.workload.kind == "many" or group.workload.source:
        return []
    middle = statistics.median(r["loss_last"]["loss"] for r in alone.values())
    found = []
    for name, result in alone.items():
        first, last = result["loss_first"]["loss"], result["loss_last"]["loss"]
        alike = last < first and abs(last / middle - 1) <= tolerance
        if result["steps_per_segment"] == group.usual_steps and not alike:
            found.append(f"{name}: {first:.4g} to {last:.4g}, in the middle of all {middle:.4g}")
    return found


def target_table(found: list[dict[str, Any]]) -> str:
    """The targets that were looked at."""
    head = ["target", "where", "figure", "must", "aim", "verdict"]
    forms = ("{}", "{}", "{:.3f}", "<= {}", "<= {}", "{}")
    cells = [zip(forms, target.values(), strict=True) for target in found]
    rows = [[form.format(value) for form, value in row] for row in cells]
    return "\n".join(["", "## Targets", "", *columns(head, rows)])


def as_json(group: Group) -> dict[str, Any]:
    """All that came out of a group."""
    load = group.workload
    found = {"backend": group.backend, "workload": load.name, "device": group.given.device}
    found |= {"batch": load.batch, "programs": group.results, "left_out": group.left_out}
    found |= {"ratios": ratios(group), "parameter_mismatches": mismatches(group)}
    return found | {"losses_astray": astray(group)}


def write(groups: list[Group], path: Path) -> None:
    """Writes the JSON, with the versions of Python and of what is installed."""
    installed = [name for name in PACKAGES if importlib.util.find_spec(name)]
    versions = {name: importlib.metadata.version(name) for name in installed}
    found = {"versions": {"python": platform.python_version()} | versions}
    found["groups"] = [as_json(group) for group in groups]
    found["targets"] = [target for group in groups for target in targets.check(group)]
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(found, indent=1) + "\n")

"""Tables for people, and JSON for programs."""

import json
import platform
from collections.abc import Iterable
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

from benchmarks import ratios, targets
from benchmarks.turns import Group

PACKAGES = ("keras", "jax", "torch", "tensorflow", "lightning", "flax", "optax")


def group_tables(group: Group) -> str:
    """All that came out of one backend and workload."""
    load = group.workload
    lines = ["", f"## {group.backend}: {load.name} (batch {load.batch})", ""]
    rows = [_row(result, name, group) for name, result in group.results.items()]
    lines += columns(_HEAD, rows)
    lines += _ratio_lines(group)
    lines += [f"left out: {name}: {reason}" for name, reason in group.left_out.items()]
    lines += [f"PARAMETERS DIFFER: {text}" for text in ratios.mismatches(group)]
    lines += [f"LOSSES DIFFER: {text}" for text in ratios.astray(group)]
    return "\n".join(lines)


_HEAD = ["program", "ms/step", "range", "first step s", "then warm-up s", "peak MiB"]
_HEAD += ["weights", "loss, first step", "last segment"]


def _row(result: dict[str, Any], name: str, group: Group) -> list[str]:
    scale = 1e3 / result["models"]
    time = ratios.spread([scale * s for s in result["seconds"]])
    peaks = result["memory_mib"].values()
    row = [name, f"{time['median']:.3f}", f"{time['low']:.3f}-{time['high']:.3f}"]
    row += [f"{result['first_step_s']:.2f}", f"{result['warm_up_s']:.2f}"]
    row += ["+".join(f"{peak:.0f}" for peak in peaks)]
    row += [f"{sum(result['parameters'].values()):,}"]
    row += [_losses(result[key]) for key in ("loss_first", "loss_last")]
    return row if not result.get("tflops") else [*row[:2], f"{row[2]} {_speed(result)}", *row[3:]]


def _speed(result: dict[str, Any]) -> str:
    return f"({result['tflops']:.1f} TFLOP/s)"


def _losses(losses: dict[str, float]) -> str:
    if list(losses) == ["loss"]:
        return f"{losses['loss']:.4g}"
    return " ".join(f"{name[0]}:{losses[name]:.3g}" for name in sorted(losses))


def _ratio_lines(group: Group) -> list[str]:
    table = ratios.table(group)
    if not any(table.values()):
        return ["", "(ms per model and step)"] if group.workload.kind == "many" else []
    ours = list(next(iter(table.values())))
    rows = [[f"/ {peer}", *(_ratio(table[peer][name]) for name in ours)] for peer in table]
    return ["", *columns(["time per step", *ours], rows)]


def _ratio(found: dict[str, float]) -> str:
    return f"{found['median']:.2f} ({found['low']:.2f}-{found['high']:.2f})"


def columns(head: list[str], rows: list[list[str]]) -> list[str]:
    """A table in Markdown, with columns that line up."""
    widths = [max(len(row[i]) for row in [head, *rows]) for i in range(len(head))]
    lines = [head, ["-" * width for width in widths], *rows]
    padded = [[cell.ljust(w) for cell, w in zip(row, widths, strict=True)] for row in lines]
    return [f"| {' | '.join(row)} |" for row in padded]


def target_table(found: list[dict[str, Any]]) -> str:
    """The targets that were looked at."""
    head = ["target", "where", "figure", "must", "aim", "verdict"]
    rows = [
        [t["what"], t["where"], f"{t['figure']:.3f}", *(f"<= {t[k]}" for k in ("must", "aim"))]
        for t in found
    ]
    rows = [[*row, t["verdict"]] for row, t in zip(rows, found, strict=True)]
    return "\n".join(["", "## Targets", "", *columns(head, rows)])


def versions() -> dict[str, str]:
    """Of Python and of what is installed."""
    found = {"python": platform.python_version()}
    for name in PACKAGES:
        try:
            found[name] = version(name)
        except PackageNotFoundError:
            continue
    return found


def as_json(groups: Iterable[Group]) -> dict[str, Any]:
    """All of it."""
    groups = list(groups)
    return {
        "versions": versions(),
        "groups": [
            {
                "backend": group.backend,
                "workload": group.workload.name,
                "device": group.device,
                "batch": group.workload.batch,
                "programs": group.results,
                "left_out": group.left_out,
                "ratios": ratios.table(group),
                "parameter_mismatches": ratios.mismatches(group),
                "losses_astray": ratios.astray(group),
            }
            for group in groups
        ],
        "targets": [target for group in groups for target in targets.check(group)],
    }


def write(groups: Iterable[Group], path: Path) -> None:
    """Writes the JSON."""
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(as_json(groups), indent=1) + "\n")

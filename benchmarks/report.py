"""Tables for people, and JSON for programs."""

import json
import platform
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

from benchmarks import ratios, targets
from benchmarks.turns import Group

PACKAGES = ("keras", "jax", "torch", "tensorflow", "lightning", "flax", "optax")
_HEAD = ["program", "ms/step", "range", "first step s", "then warm-up s", "peak MiB"]
_HEAD += ["weights", "loss, first step", "last segment"]


def group_tables(group: Group) -> str:
    """All that came out of one backend and workload."""
    load = group.workload
    lines = ["", f"## {group.backend}: {load.name} (batch {load.batch})", ""]
    lines += columns(_HEAD, [_row(result, name) for name, result in group.results.items()])
    lines += _ratio_lines(group)
    lines += [f"left out: {name}: {reason}" for name, reason in group.left_out.items()]
    lines += [f"PARAMETERS DIFFER: {text}" for text in ratios.mismatches(group)]
    lines += [f"LOSSES DIFFER: {text}" for text in ratios.astray(group)]
    return "\n".join(lines)


def _row(result: dict[str, Any], name: str) -> list[str]:
    scale = 1e3 / result["models"]
    time = ratios.spread([scale * s for s in result["seconds"]])
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


def _ratio_lines(group: Group) -> list[str]:
    table = ratios.table(group)
    if not any(table.values()):
        return ["", "(ms per model and step)"] if group.workload.kind == "many" else []
    ours = list(next(iter(table.values())))
    rows = [[f"/ {peer}", *(as_text(table[peer][name]) for name in ours)] for peer in table]
    return ["", *columns(["time per step", *ours], rows)]


def as_text(found: dict[str, float]) -> str:
    """A ratio with its range."""
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
    limits = [[f"{t['figure']:.3f}", f"<= {t['must']}", f"<= {t['aim']}"] for t in found]
    named = zip(found, limits, strict=True)
    rows = [[t["what"], t["where"], *cells, t["verdict"]] for t, cells in named]
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


def as_json(group: Group) -> dict[str, Any]:
    """All that came out of a group."""
    return {
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


def write(groups: list[Group], path: Path) -> None:
    """Writes the JSON."""
    checked = [target for group in groups for target in targets.check(group)]
    found = {"versions": versions(), "groups": [as_json(group) for group in groups]}
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(found | {"targets": checked}, indent=1) + "\n")

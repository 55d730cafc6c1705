"""Tables for people, and JSON for programs."""

import importlib.metadata
import importlib.util
import json
import platform
from pathlib import Path
from typing import Any

from benchmarks import ratios, targets
from benchmarks.turns import Group

PACKAGES = ("keras", "jax", "torch", "tensorflow", "lightning", "flax", "optax", "grain")
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
    rows = [[f"/ {peer}", *map(_ratio, table[peer].values())] for peer in table]
    return ["", *columns(["time per step", *next(iter(table.values()))], rows)]


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
    forms = ("{}", "{}", "{:.3f}", "<= {}", "<= {}", "{}")
    rows = [
        [form.format(cell) for form, cell in zip(forms, t.values(), strict=True)] for t in found
    ]
    return "\n".join(["", "## Targets", "", *columns(head, rows)])


def as_json(group: Group) -> dict[str, Any]:
    """All that came out of a group."""
    return {
        "backend": group.backend,
        "workload": group.workload.name,
        "device": group.given.device,
        "batch": group.workload.batch,
        "programs": group.results,
        "left_out": group.left_out,
        "ratios": ratios.table(group),
        "parameter_mismatches": ratios.mismatches(group),
        "losses_astray": ratios.astray(group),
    }


def write(groups: list[Group], path: Path) -> None:
    """Writes the JSON, with the versions of Python and of what is installed."""
    installed = [name for name in PACKAGES if importlib.util.find_spec(name)]
    versions = {name: importlib.metadata.version(name) for name in installed}
    found = {"versions": {"python": platform.python_version()} | versions}
    found["groups"] = [as_json(group) for group in groups]
    found["targets"] = [target for group in groups for target in targets.check(group)]
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(found, indent=1) + "\n")

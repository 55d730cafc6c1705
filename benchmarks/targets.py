"""What mlsystem is to reach, and whether it does."""

import statistics
from collections.abc import Iterator
from typing import Any, NamedTuple

from benchmarks.turns import Group
from benchmarks.workloads import EVERY, SOURCES


class Target(NamedTuple):
    """A figure that must not be above `must`, and is meant to reach `aim`."""

    what: str
    must: float
    aim: float
    backends: str
    workloads: str
    names: tuple[str, ...]  # of programs
    of: str = "steps"  # the key in `FIGURES`


def _steps(ours: Any, theirs: Any) -> float:
    """How long a step takes beside another, per model."""
    pairs = zip(ours["seconds"], theirs["seconds"], strict=True)
    return theirs["models"] / ours["models"] * statistics.median(a / b for a, b in pairs)


def _alternation(alternating: Any, every: Any, never: Any) -> float:
    """How long a step that alternates takes beside the mean of those that it alternates."""
    rounds = zip(*(result["seconds"] for result in (alternating, every, never)), strict=True)
    return statistics.median(EVERY * a / (e + (EVERY - 1) * n) for a, e, n in rounds)


FIGURES = {
    "steps": _steps,
    "alternation": _alternation,
    "first steps": lambda ours, theirs: ours["first_step_s"] / theirs["first_step_s"],
    "difference of first steps": lambda a, b: a["first_step_s"] - b["first_step_s"],
}
ALL, EACH = "mlp vae dcgan wgan_gp byol dcgan64", "torch jax tensorflow"
AUTO, TRUE, EAGER, OURS = "mlsystem auto", "mlsystem True", "mlsystem eager", "mlsystem"
LIGHTNING, RAW, FIT, FROM = "lightning", "raw optax+flax", "keras fit", " ".join(SOURCES)
ARRAYS = "mlsystem arrays"
MANY, SCHEDULES = ("sum 64", "sum 4"), ("every fifth", "with", "without")

TARGETS = [
    Target("auto / Lightning", 0.85, 0.6, "torch", ALL, (AUTO, LIGHTNING)),
    Target("True / Lightning", 0.6, 0.35, "torch", "mlp vae dcgan byol", (TRUE, LIGHTNING)),
    Target("auto / raw loop", 1.0, 0.8, "torch", "vae dcgan", (AUTO, "raw loop")),
    Target("mlsystem / optax+flax", 1.05, 0.9, "jax", ALL, (OURS, RAW)),
    Target("arrays / optax+flax", 0.5, 0.25, "jax", "mlp", (ARRAYS, RAW)),
    Target("arrays / optax+flax", 0.95, 0.8, "jax", "vae", (ARRAYS, RAW)),
    Target("arrays / the scan alone", 1.5, 1.2, "jax", "mlp", (ARRAYS, "scan alone")),
    Target("32 together / optax+flax", 0.4, 0.2, "jax", "mlp", ("mlsystem x32", RAW)),
    Target("mlsystem / Keras' guide", 0.85, 0.7, "tensorflow", "dcgan", (OURS, "keras guide")),
    Target("first step, auto - eager (s)", 1.5, 0.7, "torch", "dcgan", (AUTO, EAGER),
           "difference of first steps"),
    Target("time per model, K=64 / K=4", 1.1, 0.8, EACH, "many", MANY),
    Target("first step, K=64 / K=4", 20, 12, EACH, "many", MANY, "first steps"),
    Target("every fifth / its steps", 1.1, 1.0, EACH, "update_every", SCHEDULES, "alternation"),
    Target("fit / Keras' fit", 1.15, 1.0, EACH, FROM, (OURS, FIT)),
]  # fmt: skip


def check(group: Group) -> Iterator[dict[str, Any]]:
    """The targets that a group of programs says something about."""
    name = group.workload.name
    for target in TARGETS:
        applies = group.backend in target.backends.split() and name in target.workloads.split()
        if applies and all(program in group.results for program in target.names):
            figure = FIGURES[target.of](*(group.results[program] for program in target.names))
            found = {"what": target.what, "where": f"{group.backend} {name}", "figure": figure}
            verdict = "met" if figure <= target.must else "MISSED"
            verdict = "reached" if figure <= target.aim else verdict
            yield found | {"must": target.must, "aim": target.aim, "verdict": verdict}

"""What mlsystem is to reach, and whether it does."""

from collections.abc import Callable, Iterator
from typing import NamedTuple

from benchmarks import ratios
from benchmarks.turns import Group


def _ratio(ours: str, theirs: str) -> Callable[[Group], float | None]:
    def figure(group: Group) -> float | None:
        found = ratios.between(group, ours, theirs)
        return found and found["median"]

    return figure


def _first_step(ours: str, theirs: str, combine: Callable[[float, float], float]) -> Callable:
    def figure(group: Group) -> float | None:
        found = [group.results.get(name) for name in (ours, theirs)]
        return combine(*(r["first_step_s"] for r in found)) if all(found) else None

    return figure


class Target(NamedTuple):
    """A figure that must not be above `must`, and is meant to reach `aim`."""

    what: str
    must: float
    aim: float
    backends: str
    workloads: str
    figure: Callable[[Group], float | None]

    def verdict(self, figure: float) -> str:
        """In a word."""
        if figure <= self.aim:
            return "reached"
        return "met" if figure <= self.must else "MISSED"


ALL, EACH = "mlp vae dcgan wgan_gp byol dcgan64", "torch jax tensorflow"
AUTO, TRUE, LIGHTNING = "mlsystem auto", "mlsystem True", "lightning"
RAW, GUIDE = "raw optax+flax", "keras guide"
_START = _first_step(AUTO, "mlsystem eager", lambda a, b: a - b)
_GROWTH = _first_step("sum 64", "sum 4", lambda a, b: a / b)

TARGETS = [
    Target("auto / Lightning", 0.85, 0.6, "torch", ALL, _ratio(AUTO, LIGHTNING)),
    Target("True / Lightning", 0.6, 0.35, "torch", "mlp vae dcgan byol", _ratio(TRUE, LIGHTNING)),
    Target("auto / raw loop", 1.0, 0.8, "torch", "vae dcgan", _ratio(AUTO, "raw loop")),
    Target("mlsystem / optax+flax", 1.05, 0.9, "jax", ALL, _ratio("mlsystem", RAW)),
    Target("32 together / optax+flax", 0.4, 0.2, "jax", "mlp", _ratio("mlsystem x32", RAW)),
    Target("mlsystem / Keras' guide", 0.85, 0.7, "tensorflow", "dcgan", _ratio("mlsystem", GUIDE)),
    Target("first step, auto - eager (s)", 1.5, 0.7, "torch", "dcgan", _START),
    Target("time per model, K=64 / K=4", 1.1, 0.8, EACH, "many", _ratio("sum 64", "sum 4")),
    Target("first step, K=64 / K=4", 20, 12, EACH, "many", _GROWTH),
]


def check(group: Group) -> Iterator[dict[str, object]]:
    """The targets that a group of programs says something about."""
    where = f"{group.backend} {group.workload.name}"
    for target in TARGETS:
        applies = group.backend in target.backends.split()
        applies = applies and group.workload.name in target.workloads.split()
        figure = target.figure(group) if applies else None
        if figure is not None:
            found = {"what": target.what, "where": where, "figure": figure, "must": target.must}
            yield found | {"aim": target.aim, "verdict": target.verdict(figure)}

"""Which programs run which workload on which backend, and which are left out and why."""

import importlib.util
from dataclasses import dataclass, field
from typing import Any

from benchmarks.workloads import Workload


@dataclass(frozen=True)
class Entry:
    """One program.

    Attributes:
        name: as reports show it.
        path: module and class.
        options: what the class is given beside the workload.
        needs: packages that may be missing.
        steps: steps in a segment, where the workload's own number does not do.
    """

    name: str
    path: str
    options: dict[str, Any] = field(default_factory=dict)
    needs: tuple[str, ...] = ()
    steps: int | None = None

    @property
    def is_ours(self) -> bool:
        """Whether this is mlsystem itself."""
        return self.path.endswith(":MLSystem")


OURS, GUIDE = "benchmarks.peers.keras_fit:MLSystem", "benchmarks.peers.keras_fit:Guide"
RAW_TORCH, RAW_JAX = "benchmarks.peers.raw_torch:RawTorch", "benchmarks.peers.raw_jax:RawJax"
LIGHTNING = "benchmarks.peers.lightning_fit:Lightning"
TOGETHER = 32  # steps per execution on JAX
MANY_STEPS = {1: 192, 4: 96, 16: 32, 64: 12}


def entries(backend: str, workload: Workload, device: str) -> list[Entry]:
    """The programs of a backend and workload."""
    if workload.kind == "many":
        return _many()
    return {"torch": _torch, "jax": _jax, "tensorflow": _tensorflow}[backend](workload, device)


def left_out(entry: Entry, backend: str, workload: Workload) -> str | None:
    """Why a program is not run, if it is not."""
    missing = [name for name in entry.needs if importlib.util.find_spec(name) is None]
    if missing:
        return f"{', '.join(missing)} is not installed"
    if entry.path == GUIDE and backend == "jax" and workload.kind in ("wgan_gp", "byol"):
        return "Keras' fit on JAX carries the state of one optimizer, which gets every weight"
    return None


def _torch(workload: Workload, device: str) -> list[Entry]:
    return [
        Entry("mlsystem auto", OURS, {"jit_compile": "auto"}),
        Entry("mlsystem True", OURS, {"jit_compile": True}),
        Entry("mlsystem eager", OURS, {"run_eagerly": True}),
        Entry("lightning", LIGHTNING, needs=("lightning",)),
        Entry("raw loop", RAW_TORCH),
        Entry("raw compiled", RAW_TORCH, {"compile": True}),
        Entry("keras guide", GUIDE),
    ]


def _jax(workload: Workload, device: str) -> list[Entry]:
    found = [
        Entry("mlsystem", OURS),
        Entry("raw optax+flax", RAW_JAX, needs=("flax", "optax")),
        Entry("keras guide", GUIDE),
    ]
    if device == "cpu" and workload.kind not in ("mlp", "vae"):
        return found  # 32 of their steps are long: the saving does not show
    steps = max(workload.steps[device] // TOGETHER, 4) * TOGETHER
    together = {"steps_per_execution": TOGETHER}
    return [found[0], Entry("mlsystem x32", OURS, together, steps=steps), *found[1:]]


def _tensorflow(workload: Workload, device: str) -> list[Entry]:
    return [Entry("mlsystem", OURS), Entry("keras guide", GUIDE)]


def _many() -> list[Entry]:
    return [
        Entry(f"{routing} {count}", OURS, {"models": count, "routing": routing}, steps=steps)
        for routing in ("sum", "own")
        for count, steps in MANY_STEPS.items()
    ]

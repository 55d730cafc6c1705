"""Which programs run which workload on which backend, and which are left out and why."""

import importlib.util
from dataclasses import dataclass, field
from typing import Any

from benchmarks.workloads import EVERY, Workload


@dataclass(frozen=True)
class Entry:
    """One program."""

    name: str  # as reports show it
    path: str  # module of `benchmarks.peers`, and class
    options: dict[str, Any] = field(default_factory=dict)  # what the class gets
    needs: tuple[str, ...] = ()  # packages that may be missing
    steps: int | None = None  # in a segment, where not the workload's own number
    like: str = ""  # what computes the same, and can be counted: a compiled step cannot


OURS, GUIDE = "keras_fit:MLSystem", "keras_fit:Guide"
EAGER = {"run_eagerly": True}
MANY_STEPS = {1: 192, 4: 96, 16: 32, 64: 12}

LOOP, FLAX = "raw loop", "raw optax+flax"

TORCH = [
    Entry("mlsystem auto", OURS, {"jit_compile": "auto"}, like="mlsystem eager"),
    Entry("mlsystem True", OURS, {"jit_compile": True}, like="mlsystem eager"),
    Entry("mlsystem eager", OURS, EAGER),
    Entry("lightning", "lightning_fit:Lightning", needs=("lightning",)),
    Entry(LOOP, "raw_torch:RawTorch"),
    Entry("raw compiled", "raw_torch:RawTorch", {"compile": True}, like=LOOP),
    Entry("keras guide", GUIDE),
]
JAX = [
    Entry("mlsystem", OURS, like=FLAX),
    Entry("mlsystem x32", OURS, {"steps_per_execution": 32}, like=FLAX),
    Entry(FLAX, "raw_jax:RawJax", needs=("flax", "optax")),
    Entry("keras guide", GUIDE, like=FLAX),
]
# Where steps are short.
GROUPED = [
    Entry("mlsystem arrays", "from_arrays:Arrays", like=FLAX),
    Entry("scan alone", "from_arrays:Scan", needs=("flax", "optax"), like=FLAX),
]
TENSORFLOW = [Entry("mlsystem", OURS), Entry("keras guide", GUIDE)]
MANY = [
    Entry(f"{routing} {count}", OURS, {"models": count, "routing": routing}, steps=steps)
    for routing in ("sum", "own")
    for count, steps in MANY_STEPS.items()
]
SCHEDULES = [
    Entry("with", OURS),
    Entry("without", OURS, {"update_start": {"generator": 10**9}}),
    Entry("every fifth", OURS, {"update_every": {"generator": EVERY}}),
]
NEEDS = {"tf_data": ("tensorflow",), "streams_tf_data": ("tensorflow",)}
NEEDS |= {"data_loader": ("torch",), "grain": ("grain",)}


def entries(backend: str, workload: Workload, device: str) -> list[Entry]:
    """The programs of a backend and workload."""
    if workload.source:
        return _from_source(backend, NEEDS.get(workload.source, ()))
    if workload.kind in ("many", "dense_gan"):
        return MANY if workload.kind == "many" else SCHEDULES
    if backend == "jax" and device == "cpu" and workload.kind not in ("mlp", "vae"):
        return [JAX[0], *JAX[2:]]  # where steps are long, 32 of them together save little
    return {"torch": TORCH, "jax": [*JAX, *GROUPED], "tensorflow": TENSORFLOW}[backend]


def _from_source(backend: str, needs: tuple[str, ...]) -> list[Entry]:
    """Keras runs eagerly on torch: beside it, so does mlsystem."""
    ours = [Entry("mlsystem", "data_path:MLSystem", needs=needs)]
    if backend == "torch":
        ours.append(Entry("mlsystem eager", "data_path:MLSystem", EAGER, needs))
    return [*ours, Entry("keras fit", "data_path:Plain", needs=needs)]


def left_out(entry: Entry, backend: str, workload: Workload) -> str | None:
    """Why a program is not run, if it is not."""
    missing = [name for name in entry.needs if importlib.util.find_spec(name) is None]
    if missing:
        return f"{', '.join(missing)} is not installed"
    if entry.path == GUIDE and backend == "jax" and workload.kind in ("wgan_gp", "byol"):
        return "Keras' fit on JAX carries the state of one optimizer, which gets every weight"
    return None

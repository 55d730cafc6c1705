"""How much a program computes in a second."""

import statistics

from benchmarks.turns import Group

# A captured or compiled step is not looked into: it computes what this one does.
SAME_AS = {
    "mlsystem auto": "mlsystem eager",
    "mlsystem True": "mlsystem eager",
    "raw compiled": "raw loop",
    "mlsystem": "raw optax+flax",
    "mlsystem x32": "raw optax+flax",
    "keras guide": "raw optax+flax",
}


def add(group: Group) -> None:
    """Adds TFLOP/s to each result whose operations were counted, itself or in its like."""
    for name, result in group.results.items():
        like = group.results.get(SAME_AS.get(name, name), result)
        counted = result.get("operations") or like.get("operations")
        if counted:
            result["operations_per_step"] = counted
            result["tflops"] = counted / statistics.median(result["seconds"]) / 1e12

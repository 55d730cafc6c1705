"""`mlsystem doctor`: what is installed, and whether a step compiles and how fast it is."""

import argparse
import json
import platform
import statistics
import time
import warnings
from typing import Any

from mlsystem import _backend_choice
from mlsystem._checks import version_of
from mlsystem._cli.mistake import Mistake

_PACKAGES = (
    *("mlsystem", "keras", "jax", "torch", "tensorflow", "numpy", "flax", "matplotlib"),
    *("tensorboardX", "wandb", "mlflow", "trackio", "comet-ml", "onnx", "onnxruntime", "openvino"),
    *("optuna", "keras-tuner", "ray", "jsonargparse"),
)
_STEPS, _ROWS = 60, 64


def run(command: str, words: list[str]) -> int:
    """Show versions, devices, and whether a training step compiles and how fast it is."""
    parser = argparse.ArgumentParser(prog=f"mlsystem {command}", description=run.__doc__)
    parser.add_argument("--json", action="store_true", help="print JSON")
    given, unknown = parser.parse_known_args(words)
    if unknown:
        raise Mistake(f"doctor does not know {' '.join(unknown)}. It takes --json only.")
    found = examined()
    print(json.dumps(found, indent=2) if given.json else text(found))
    return 0 if found["step"].get("error") is None else 1


def examined() -> dict[str, Any]:
    """Return all that the doctor finds, as plain values."""
    from mlsystem._keras.lookup import version
    from mlsystem.engine import engine

    return {
        "python": platform.python_version(),
        "system": platform.platform(),
        "packages": {name: found for name in _PACKAGES if (found := version_of(name))},
        "backend": {"name": engine.name, "why": _backend_choice.why()},
        "devices": engine.devices(),
        "keras": version(),
        "step": step(),
    }


def step() -> dict[str, Any]:
    """Train a small system of two models. Return how its step is compiled, and its times."""
    import numpy as np

    from mlsystem._cli.small_system import SmallSystem
    from mlsystem.engine import engine

    rows = np.random.default_rng(0).normal(size=(_ROWS * _STEPS, 16)).astype("float32")
    system, start = SmallSystem(), time.perf_counter()
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        try:
            system.fit(rows[:_ROWS], batch_size=_ROWS, verbose=0)
        except Exception as error:
            return {"error": f"{type(error).__name__}: {error}", "compiled": ""}
        first = time.perf_counter() - start
        times = [_epoch(system, rows) for _ in range(3)]
    return {
        "compiled": engine.compiler(system),
        "first_seconds": round(first, 3),
        "milliseconds": round(1e3 * statistics.median(times) / _STEPS, 3),
        "warnings": sorted({str(w.message) for w in caught if _is_for_users(w.category)}),
    }


def _is_for_users(kind: type[Warning]) -> bool:
    return not issubclass(kind, (DeprecationWarning, PendingDeprecationWarning))


def _epoch(system: Any, rows: Any) -> float:
    start = time.perf_counter()
    system.fit(rows, batch_size=_ROWS, verbose=0)
    return time.perf_counter() - start


def text(found: dict[str, Any]) -> str:
    """Write what was found as lines."""
    packages = ", ".join(f"{name} {version}" for name, version in found["packages"].items())
    lines = [
        f"python    {found['python']} on {found['system']}",
        f"packages  {packages}",
        f"backend   {found['backend']['name']}: {found['backend']['why']}",
        f"devices   {', '.join(found['devices'])}",
        f"keras     {found['keras']}",
        f"step      {_step_text(found['step'])}",
    ]
    return "\n".join([*lines, *(f"warning   {each}" for each in found["step"].get("warnings", []))])


def _step_text(step: dict[str, Any]) -> str:
    if step.get("error"):
        return f"fails: {step['error']}"
    how = f"compiled whole by {step['compiled']}" if step["compiled"] else "not compiled: eager"
    return f"{how}; first {step['first_seconds']:.2f} s, then {step['milliseconds']:.3f} ms a step"

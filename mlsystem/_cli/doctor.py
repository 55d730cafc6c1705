"""`mlsystem doctor`: what is installed, and whether a step compiles and how fast it is."""

import argparse
import json
import platform
import statistics
import time
import warnings
from typing import Any

import keras
import numpy as np
from keras import layers, ops

from mlsystem import _backend_choice
from mlsystem._checks import version_of
from mlsystem._cli.mistake import Mistake
from mlsystem._keras.lookup import version
from mlsystem.engine import engine
from mlsystem.models.system import MLSystem

_PACKAGES = (
    *("mlsystem", "keras", "jax", "torch", "tensorflow", "numpy", "flax", "matplotlib"),
    *("tensorboardX", "wandb", "mlflow", "trackio", "comet-ml", "onnx", "onnxruntime", "openvino"),
    *("optuna", "keras-tuner", "ray", "jsonargparse"),
)
_STEPS, _ROWS = 60, 64


class Small(MLSystem):
    """A GAN of vectors of 16 numbers."""

    routing = "own"

    def __init__(self) -> None:
        super().__init__()
        self.generator = keras.Sequential([layers.Dense(32, "relu"), layers.Dense(16)])
        self.discriminator = keras.Sequential([layers.Dense(32, "relu"), layers.Dense(1)])
        self.seed = keras.random.SeedGenerator(0)

    def forward(self, x: Any, training: Any = None) -> Any:
        """Score real and generated vectors."""
        fake = self.generator(keras.random.normal(ops.shape(x), seed=self.seed))
        return self.discriminator(x), self.discriminator(fake)

    def compute_losses(  # type: ignore[override]
        self, x: Any, y: Any, outputs: Any
    ) -> dict[str, Any]:
        """Return the loss of each model."""
        real, fake = outputs
        lost = ops.mean(ops.softplus(fake) + ops.softplus(-real))
        return {"generator": ops.mean(ops.softplus(-fake)), "discriminator": lost}


def doctor() -> dict[str, Any]:
    """Show versions, devices, and whether a training step compiles and how fast it is."""
    return {
        "python": f"{platform.python_version()} on {platform.platform()}",
        "packages": {name: found for name in _PACKAGES if (found := version_of(name))},
        "backend": {"name": engine.name, "why": _backend_choice.why()},
        "devices": engine.devices(),
        "keras": version(),
        "step": step(),
    }


def step() -> dict[str, Any]:
    """Train a small system of two models. Return how its step is compiled, and its times."""
    rows = np.random.default_rng(0).normal(size=(_ROWS * _STEPS, 16)).astype("float32")
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        for kind in (DeprecationWarning, PendingDeprecationWarning):
            warnings.simplefilter("ignore", kind)
        try:
            system = Small()
            first, *times = (_seconds(system, part) for part in (rows[:_ROWS], rows, rows, rows))
        except Exception as error:
            return {"error": f"{type(error).__name__}: {error}", "compiled": ""}
    return {
        "compiled": engine.compiler(system),
        "first_seconds": round(first, 3),
        "milliseconds": round(1e3 * statistics.median(times) / _STEPS, 3),
        "warnings": sorted({str(each.message) for each in caught}),
    }


def _seconds(system: Any, rows: Any) -> float:
    start = time.perf_counter()
    system.fit(rows, batch_size=_ROWS, verbose=0)
    return time.perf_counter() - start


def run(words: list[str]) -> int:
    """Print what the doctor finds, as lines or as JSON. Return 1 if no step could be trained."""
    parser = argparse.ArgumentParser(prog="mlsystem doctor", description=doctor.__doc__)
    parser.add_argument("--json", action="store_true", help="print JSON")
    given, unknown = parser.parse_known_args(words)
    if unknown:
        raise Mistake(f"doctor does not know {' '.join(unknown)}. It takes --json only.")
    found = doctor()
    print(json.dumps(found, indent=2) if given.json else text(found))
    return int("error" in found["step"])


def text(found: dict[str, Any]) -> str:
    """Write what was found as lines."""
    lines = found | {"backend": "{name}: {why}".format(**found["backend"])}
    step = found["step"]
    how = f"compiled whole by {step['compiled']}" if step["compiled"] else "not compiled: eager"
    times = "; first {first_seconds:.2f} s, then {milliseconds:.3f} ms a step"
    lines["step"] = f"fails: {step['error']}" if "error" in step else how + times.format(**step)
    lines["warnings"] = step.get("warnings", [])
    return "\n".join(f"{name:<9} {_line(each)}" for name, each in lines.items() if each)


def _line(value: Any) -> str:
    parts = [f"{k} {v}" for k, v in value.items()] if isinstance(value, dict) else value
    return parts if isinstance(parts, str) else ", ".join(parts)

"""Run exported files, each in its own runtime, on NumPy arrays."""

import importlib
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from mlsystem.engine import engine
from mlsystem.export.formats import Format, is_installed

Run = Callable[[Path, Sequence[str], Sequence[Any]], dict[str, Any]]


def runtime(wanted: Format) -> Run | None:
    """Return the function that runs a file of this format. None if its runtime is missing."""
    if wanted.name in (of_backend := engine.exporting().RUNTIMES):
        found: Run = of_backend[wanted.name]
        return found
    return _RUNS[wanted.name] if is_installed(wanted.runtime) else None


def _onnx(path: Path, names: Sequence[str], arrays: Sequence[Any]) -> dict[str, Any]:
    onnxruntime = importlib.import_module("onnxruntime")
    session = onnxruntime.InferenceSession(str(path), providers=["CPUExecutionProvider"])
    outputs = [output.name for output in session.get_outputs()]
    found = session.run(outputs, dict(zip(names, arrays, strict=True)))
    return dict(zip(outputs, found, strict=True))


def _openvino(path: Path, names: Sequence[str], arrays: Sequence[Any]) -> dict[str, Any]:
    openvino = importlib.import_module("openvino")
    # Some processors compute in bfloat16 unless they are told otherwise.
    exact = {"INFERENCE_PRECISION_HINT": "f32"}
    model = openvino.Core().compile_model(str(path), "CPU", exact)
    found = model(dict(zip(names, arrays, strict=True)))
    return {output.any_name: np.asarray(found[output]) for output in model.outputs}


def _litert(path: Path, names: Sequence[str], arrays: Sequence[Any]) -> dict[str, Any]:
    interpreter = importlib.import_module("ai_edge_litert.interpreter").Interpreter(str(path))
    run = interpreter.get_signature_runner("serving_default")
    found: dict[str, Any] = run(**dict(zip(names, arrays, strict=True)))
    return found


_RUNS: dict[str, Run] = {"onnx": _onnx, "openvino": _openvino, "litert": _litert}

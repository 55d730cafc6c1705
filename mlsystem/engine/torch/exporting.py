"""Files that PyTorch writes: an exported program, and ONNX from it."""

import logging
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
from keras import ops

from mlsystem.engine.torch.traceable_keras import drawing_freely


class _Served(torch.nn.Module):
    """A model with named arrays, as a module with one argument for each array."""

    def __init__(self, served: Any, is_flat: bool) -> None:
        super().__init__()
        self.model, self.served, self.is_flat = served.model, served, is_flat

    def forward(self, *arrays: torch.Tensor) -> Any:
        outputs = self.served(*arrays)
        if self.is_flat:
            return tuple(outputs.values())
        return outputs["output"] if list(outputs) == ["output"] else outputs


def write_program(served: Any, path: Path) -> None:
    """Write a model as an exported program, which `torch.export.load` reads."""
    torch.export.save(_program(served, is_flat=False), path)


def write_onnx(served: Any, path: Path) -> None:
    """Write a model as ONNX."""
    logging.getLogger("torch.onnx").setLevel(logging.ERROR)  # it warns of missing torchvision
    exported = torch.onnx.export(
        _program(served, is_flat=True),
        input_names=[port.name for port in served.inputs],
        output_names=[port.name for port in served.outputs],
        dynamo=True,
        optimize=True,
        verbose=False,
    )
    if exported is None:
        raise RuntimeError("torch.onnx.export returned nothing.")
    exported.save(str(path))


def _program(served: Any, is_flat: bool) -> torch.export.ExportedProgram:
    # A size of one would become a constant, so that the batch has two samples.
    arrays = tuple(ops.convert_to_tensor(array) for array in served.arrays(2))
    free = tuple(_free(port) for port in served.inputs)
    module = _Served(served, is_flat).eval()
    with drawing_freely():
        return torch.export.export(module, arrays, dynamic_shapes=(free,), strict=False)


def _free(port: Any) -> dict[int, Any]:
    """Return the dimensions of an input that may vary. The batch is one for all inputs."""
    batch = torch.export.Dim("batch")
    named = {0: batch} if port.shape and port.shape[0] is None else {}
    later = [i for i, size in enumerate(port.shape) if size is None and i]
    return named | dict.fromkeys(later, torch.export.Dim.DYNAMIC)


def run_program(path: Path, names: Sequence[str], arrays: Sequence[Any]) -> dict[str, Any]:
    """Run an exported program on NumPy arrays."""
    program = torch.export.load(path).module()
    outputs = program(*(ops.convert_to_tensor(array) for array in arrays))
    found = outputs if isinstance(outputs, dict) else {"output": outputs}
    return {name: value.detach().cpu().numpy() for name, value in found.items()}


WRITERS = {"torch": write_program, "onnx": write_onnx}
RUNTIMES = {"torch": run_program}

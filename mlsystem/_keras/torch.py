"""The parts of Keras' torch backend that are read or replaced while a step is captured.

`draw_seed` draws the seed of a random operation. It exists in Keras 3.11, and the import of
mlsystem fails without it. In the module `random`, it is replaced while a step is rehearsed, which
notes the seeds.

The other parts are in the table `_ON_TORCH`. If one is missing, mlsystem warns once at import and
leaves that part alone: steps that use it run slower, or eagerly.

- `core.cond`, `core.scatter`, `nadam.core`: they read a tensor's value in Python. A traceable
  function takes their place.
- `nn.moments`, `nn.batch_normalization`, `nn._transpose_spatial_inputs`, `adam.Adam`: faster
  operations of torch take their place.
- `random.torch_seed_generator`: it makes a generator of torch from a seed. A mark in the graph
  takes its place.

`compute_conv_transpose_output_crops_for_torch` in `nn` and `Adam._parallel_update_step` are
replaced too, if they are there. Without them, such steps run slower, with no warning.

Until Keras 3.15, `core` and `nn` are in `keras.src.backend.torch`. Since Keras 3.16, they are in
`keras.src.backend.torch.ops`, which has the functions of `core` in it, too.
"""

import contextlib
import importlib
from types import SimpleNamespace
from typing import Any

from mlsystem._keras.lookup import needed, warn_of

with needed():
    from keras.src.random.seed_generator import draw_seed as draw_seed

# By module: where it is (in Keras 3.16, or before), and what is replaced in it.
_ON_TORCH: dict[str, tuple[tuple[str, ...], tuple[str, ...]]] = {
    "core": (("ops.core", "core"), ("cond", "scatter")),
    "ops": (("ops",), ()),
    "nn": (
        ("ops.nn", "nn"),
        ("_transpose_spatial_inputs", "batch_normalization", "moments"),
    ),
    "random": (("random",), ("torch_seed_generator",)),
    "nadam": (("optimizers.torch_nadam",), ("core",)),
    "adam": (("optimizers.torch_adam",), ("Adam",)),
}


def tensorflow_random() -> Any:
    """Return Keras' module of random operations on TensorFlow, which draws seeds."""
    return importlib.import_module("keras.src.backend.tensorflow.random")


def torch_modules() -> SimpleNamespace:
    """Return Keras' modules for torch by name, None for a missing one; warn of missing parts."""
    found = {name: _on_torch(*places) for name, (places, _) in _ON_TORCH.items()}
    gone = [
        f"{name}.{part}"
        for name, (_, parts) in _ON_TORCH.items()
        for part in parts
        if not hasattr(found[name], part)
    ]
    if gone:
        warn_of(
            f"Keras' torch backend has no {', '.join(gone)}. Steps that would use them run slower, "
            "or eagerly."
        )
    return SimpleNamespace(**found)


def _on_torch(*places: str) -> Any:
    """Return the first module that exists."""
    for place in places:
        with contextlib.suppress(ModuleNotFoundError):
            return importlib.import_module(f"keras.src.backend.torch.{place}")
    return None

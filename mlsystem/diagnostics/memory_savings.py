"""What would cut the memory of training, and by how many bytes. Only what applies is listed."""

import math
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

import keras

from mlsystem import _keras, _learner
from mlsystem.diagnostics.wording import size
from mlsystem.engine import engine

RANK = 8  # of the adapters that LoRA would add
_LEAST = 0.01  # of all memory: less is not worth a line


@dataclass(frozen=True)
class Saving:
    """A change that would cut the memory of training.

    Attributes:
        what: the change, in the words of Keras.
        model: the model that it changes. "" for all models.
        bytes: how many bytes it saves.
        bound: "", "about" or "at most".
    """

    what: str
    model: str
    bytes: int
    bound: str = ""

    def text(self) -> str:
        """Return the bytes in short, with the bound."""
        return f"{self.bound} {size(self.bytes)}".strip()


def find(learner: Any, memory: Any, stored: int | None, rows: int) -> list[Saving]:
    """Return the changes that apply, the largest first.

    Args:
        learner: the learner of the model or system.
        memory: the `Memory`, with its models and its total.
        stored: the bytes that the forward pass stores. None if they are not known.
        rows: the size of the batch.
    """
    found = [*_of_models(learner, memory), *_of_devices(memory.total)]
    if stored:
        found += _of_batch(learner, memory, stored, rows)
    worth = [saving for saving in found if saving.bytes >= _LEAST * memory.total and saving.bytes]
    return sorted(worth, key=lambda saving: -saving.bytes)


# Weights, gradients and optimizers -------------------------------------------------------------


def _of_models(learner: Any, memory: Mapping[str, Any]) -> Iterator[Saving]:
    for name, model in learner.members().items():
        layers = _layers(model)
        if _learner.is_copy(model):
            continue
        if not model.trainable_weights:
            floats = memory[name].weights.get("float32", 0)
            yield Saving("dtype='bfloat16'", name, floats // 2)
        frozen = [layer for layer in layers if _is_quantizable(layer)]
        yield Saving("quantize('int8')", name, sum(map(_int8, frozen)), "about")
        gradients = sum(memory[name].gradients.values())
        slots = sum(memory[name].optimizer.values()) / gradients if gradients else 0.0
        adapted = [_lora(layer, slots) for layer in layers if _takes_adapter(layer)]
        yield Saving(f"LoRA of rank {RANK}", name, sum(n for n in adapted if n > 0), "about")


def _layers(model: Any) -> list[Any]:
    """Return the built layers of a model that hold weights of their own."""
    found = _keras.flat_layers(model) if isinstance(model, keras.Layer) else []
    return [one for one in found if one.weights and not isinstance(one, keras.Model)]


def _kernel(layer: Any) -> Any:
    return max(layer.weights, key=lambda weight: math.prod(weight.shape))


def _itemsize(weight: Any) -> int:
    return {"float32": 4, "float64": 8}.get(_keras.stored_dtype(weight), 2)


def _is_quantizable(layer: Any) -> bool:
    """Return whether Keras quantizes the layer, whose kernel is frozen and not quantized yet."""
    has_method = type(layer).quantize is not keras.Layer.quantize
    is_plain = getattr(layer, "quantization_mode", None) is None
    return has_method and is_plain and not _kernel(layer).trainable


def _int8(layer: Any) -> int:
    """Return the bytes of a kernel less those of its int8 form, which has a scale per column."""
    kernel = _kernel(layer)
    scales = kernel.shape[0 if isinstance(layer, keras.layers.Embedding) else -1]
    width = _itemsize(kernel)
    return math.prod(kernel.shape) * (width - 1) - scales * width


def _takes_adapter(layer: Any) -> bool:
    has_method = hasattr(layer, "enable_lora") and not getattr(layer, "lora_rank", None)
    return has_method and _kernel(layer).trainable


def _lora(layer: Any, slots: float) -> int:
    """Return the bytes of a kernel's gradient and slots, less those of the adapter with its own."""
    kernel = _kernel(layer)
    adapter = RANK * (math.prod(kernel.shape[:-1]) + kernel.shape[-1])
    saved = math.prod(kernel.shape) * (1 + slots) - adapter * (2 + slots)
    return int(saved * _itemsize(kernel))


def _of_devices(total: int) -> Iterator[Saving]:
    count = len(engine.devices()) if engine.shards_models else 1
    if count > 1 and keras.distribution.distribution() is None:
        saved = total * (count - 1) // count
        yield Saving(f"ModelParallel on {count} devices", "", saved, "at most")


# What the forward pass stores ------------------------------------------------------------------


def _of_batch(learner: Any, memory: Mapping[str, Any], stored: int, rows: int) -> Iterator[Saving]:
    layers = [one for model in learner.members().values() for one in _layers(model)]
    if all(one.compute_dtype == "float32" for one in layers):
        yield Saving("mixed_bfloat16", "", stored // 2, "at most")
    if rows > 1:
        what = "half the batch, gradient_accumulation_steps=2"
        yield Saving(what, "", stored // 2 - _accumulators(learner, memory), "about")
    if not any(map(_keras.remat_mode, layers)):
        yield Saving("keras.RematScope", "", stored, "at most")


def _accumulators(learner: Any, memory: Mapping[str, Any]) -> int:
    """Return the bytes of the accumulators that the optimizers do not have yet."""
    return sum(
        sum(memory[name].gradients.values())
        for name, optimizer in learner.optimizers.items()
        if not getattr(optimizer, "inner_optimizer", optimizer).gradient_accumulation_steps
    )

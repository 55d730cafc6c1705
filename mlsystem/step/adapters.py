"""`ml.without_adapters`: run a model without its LoRA adapters."""

import contextlib
from collections.abc import Iterator
from typing import Any

import keras

from mlsystem import _keras

# Where Keras and KerasHub keep compiled calls of a model, which hold the adapters or do not.
_COMPILED = ("train_function", "test_function", "predict_function", "generate_function")


@contextlib.contextmanager
def without_adapters(model: Any) -> Iterator[None]:
    """Switch the LoRA adapters of all layers inside a model off in this context.

    Use it for the frozen reference of a policy, as in DPO or GRPO. It needs no second copy of the
    model. It works in a compiled step, and in code that runs eagerly:

    ```python
    def forward(self, x):
        with ml.without_adapters(self.policy):
            reference = ops.stop_gradient(self.policy(x))
        return {"policy": self.policy(x), "reference": reference}
    ```

    Inside, the model computes what it computed before `enable_lora`, as long as its other weights
    are frozen. `enable_lora` freezes the kernel of a layer, but not its bias: freeze it yourself,
    also in a KerasHub backbone. No gradient reaches the adapters from calls inside. Gradients still
    reach the other trained weights: stop them, as above, or use a loss that another model follows.

    Contexts can be nested. Adapters that were on are on again afterwards, also after an error.

    Args:
        model: a model or layer, or a system. All of its layers count, at any depth.

    Raises:
        TypeError: `model` is not a Keras model or layer.
        ValueError: no layer of it has an adapter. `fit` inside the context raises it too, because
            it could not train the adapters.
    """
    layers = adapted(model)
    if not layers:
        raise ValueError(
            f"'{model.name}' has no LoRA adapters. Build it, then call `enable_lora(rank)` on its "
            "layers, or on the backbone of a KerasHub model."
        )
    on = [layer for layer in layers if layer.lora_enabled]  # not those that are still to be built
    with own_functions(model), _off(on):
        yield


def adapted(model: Any) -> list[Any]:
    """Return the layers of a model that have an adapter, whether it is on or off."""
    if not isinstance(model, keras.Layer):
        raise TypeError(f"ml.without_adapters got {model!r}. Give a Keras model or layer.")
    return [layer for layer in _keras.flat_layers(model) if getattr(layer, "lora_rank", None)]


def check_trained(model: Any) -> None:
    """Raise an error if `fit` would train a model whose adapters are off, and so never moved."""
    for layer in adapted(model):
        weights = [weight.name for weight in layer.trainable_weights]
        if layer.built and not layer.lora_enabled and any("lora" in name for name in weights):
            raise ValueError(
                f"fit of '{model.name}' runs where the adapters of '{layer.name}' are off, so it "
                "would not train them. Call fit outside of ml.without_adapters, or freeze the "
                "adapters."
            )


@contextlib.contextmanager
def _off(layers: list[Any]) -> Iterator[None]:
    try:
        for layer in layers:
            layer.lora_enabled = False
        yield
    finally:
        for layer in layers:
            layer.lora_enabled = True


def predicting(model: Any) -> contextlib.AbstractContextManager[None]:
    """Have `predict` compile anew if adapters inside the model are off at present."""
    is_off = any(layer.built and not layer.lora_enabled for layer in adapted(model))
    return own_functions(model) if is_off else contextlib.nullcontext()


@contextlib.contextmanager
def own_functions(model: Any) -> Iterator[None]:
    """Have `predict` and its kin compile anew in this context, and keep what they had outside."""
    held = [
        (vars(layer), name, vars(layer)[name])
        for layer in _keras.flat_layers(model)
        for name in _COMPILED
        if name in vars(layer)
    ]
    for attributes, name, _ in held:
        attributes[name] = None
    try:
        yield
    finally:
        for attributes, name, function in held:
            attributes[name] = function

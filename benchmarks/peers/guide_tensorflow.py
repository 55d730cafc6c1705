"""How Keras' guide to custom training in TensorFlow takes gradients: by a tape an update."""

import contextlib
from collections.abc import Callable
from typing import Any

import tensorflow as tf

constant = contextlib.nullcontext  # what is outside of a tape is constant


def descend(model: Any, loss_of: Callable[[], Any], weights: list[Any], optimizer: Any) -> Any:
    """One update of some weights, down a loss; the loss."""
    with tf.GradientTape() as tape:
        loss = loss_of()
    gradients = tape.gradient(loss, weights)
    optimizer.apply_gradients(zip(gradients, weights, strict=True))
    return loss


def slope(network: Any, x: Any) -> Any:
    """The gradient of a network's outputs with respect to its inputs."""
    with tf.GradientTape() as tape:
        tape.watch(x)
        outputs = network(x)
    return tape.gradient(outputs, x)

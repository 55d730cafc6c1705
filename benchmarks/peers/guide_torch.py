"""How Keras' guide to custom training in PyTorch takes gradients.

It zeroes the gradients of the whole model, calls `backward`, collects the gradients of the weights,
and applies them under `no_grad`. So the generator's update computes gradients of the discriminator
too.
"""

from collections.abc import Callable
from typing import Any

import torch

constant = torch.no_grad


def descend(model: Any, loss_of: Callable[[], Any], weights: list[Any], optimizer: Any) -> Any:
    """One update of some weights, down a loss; the loss."""
    model.zero_grad()
    loss = loss_of()
    loss.backward()
    gradients = [weight.value.grad for weight in weights]
    with torch.no_grad():
        optimizer.apply(gradients, weights)
    return loss


def slope(network: Any, x: Any) -> Any:
    """The gradient of a network's outputs with respect to its inputs."""
    [found] = torch.autograd.grad(network(x.requires_grad_()).sum(), x, create_graph=True)
    return found

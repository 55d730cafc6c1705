"""The parts of the losses in PyTorch, and the GAN's step in it, where the fakes are made once."""

from typing import Any

import torch
from torch.nn import functional

from benchmarks.peers.functions import Functions
from benchmarks.peers.steps import Updates

Tensor = torch.Tensor


class TorchFunctions(Functions):
    """See `Functions`."""

    np = torch
    constant = staticmethod(torch.no_grad)
    mse = staticmethod(functional.mse_loss)

    def grid(self, images: Tensor) -> Tensor:
        return super().grid(images).to(images.device)

    def uniform(self, images: Tensor, low: float, high: float) -> Tensor:
        return torch.empty(len(images), 1, 1, device=images.device).uniform_(low, high)

    def normal(self, like: Tensor, *shape: int) -> Tensor:
        return torch.randn(len(like), *shape, device=like.device)

    def entropy(self, labels: Tensor, logits: Tensor) -> Tensor:
        return functional.binary_cross_entropy_with_logits(logits, labels)

    def nats(self, images: Tensor, logits: Tensor) -> Tensor:
        nats = functional.binary_cross_entropy_with_logits(logits, images, reduction="none")
        return nats.sum(-1)

    def cosine(self, one: Tensor, other: Tensor) -> Tensor:
        return functional.cosine_similarity(one, other, dim=-1)

    def slope(self, network: Any, x: Tensor) -> Tensor:
        [found] = torch.autograd.grad(network(x.requires_grad_()).sum(), x, create_graph=True)
        return found


def gan(f: Any, nets: Any, images: Tensor) -> Updates:
    """The discriminator on real and detached fake images, then the generator on the same ones."""
    judge, fakes = nets["discriminator"], torch.empty(0)

    def tell() -> Tensor:
        nonlocal fakes
        fakes = nets["generator"](f.noise(images))
        return f.tell(judge(images), judge(fakes.detach()))

    yield "discriminator", tell
    yield "generator", lambda: f.fool(judge(fakes))


def generator_first(f: Any, nets: Any, images: Tensor) -> Updates:
    """The generator, then the discriminator on the same fake images."""
    judge, fakes = nets["discriminator"], torch.empty(0)

    def fool() -> Tensor:
        nonlocal fakes
        fakes = nets["generator"](f.noise(images))
        return f.fool(judge(fakes))

    yield "generator", fool
    yield "discriminator", lambda: f.tell(judge(images), judge(fakes.detach()))

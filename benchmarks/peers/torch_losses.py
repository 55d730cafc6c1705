"""The losses in PyTorch, which the raw loop and Lightning share."""

import torch
from torch.nn import functional


def elbo(images: torch.Tensor, codes: torch.Tensor, decoder: torch.nn.Module) -> torch.Tensor:
    """The negative bound on the evidence."""
    mean, log_var = codes.chunk(2, dim=-1)
    logits = decoder(mean + torch.exp(0.5 * log_var) * torch.randn_like(mean))
    nats = functional.binary_cross_entropy_with_logits(logits, images, reduction="sum")
    divergence = 0.5 * torch.sum(log_var.exp() + mean**2 - 1 - log_var)
    return (nats + divergence) / len(images)


def real(logits: torch.Tensor) -> torch.Tensor:
    """The cross entropy of logits whose label is 1."""
    return functional.binary_cross_entropy_with_logits(logits, torch.ones_like(logits))


def fake(logits: torch.Tensor) -> torch.Tensor:
    """The cross entropy of logits whose label is 0."""
    return functional.binary_cross_entropy_with_logits(logits, torch.zeros_like(logits))


def penalty(critic: torch.nn.Module, images: torch.Tensor, fakes: torch.Tensor) -> torch.Tensor:
    """WGAN-GP's penalty on the critic's slopes between real and fake images."""
    weight = torch.rand(len(images), 1, 1, 1, device=images.device)
    between = (weight * images + (1 - weight) * fakes).requires_grad_()
    [slope] = torch.autograd.grad(critic(between).sum(), between, create_graph=True)
    norm = torch.sqrt(slope.square().sum(dim=(1, 2, 3)) + 1e-12)
    return (norm - 1).square().mean()


def view(images: torch.Tensor) -> torch.Tensor:
    """Each image moved, resized and turned brighter or darker by its own random amounts."""
    count, size = len(images), images.shape[-1]

    def uniform(low: float, high: float) -> torch.Tensor:
        return torch.empty(count, 1, 1, device=images.device).uniform_(low, high)

    grid = torch.arange(size, device=images.device) - (size - 1) / 2
    rows, columns = (
        functional.relu(1 - (grid - (uniform(0.8, 1.2) * grid[:, None] + uniform(-2, 2))).abs())
        for _ in range(2)
    )
    moved = rows @ images[:, 0] @ columns.transpose(1, 2)
    return (uniform(0.7, 1.3) * moved + 0.1 * torch.randn_like(moved))[:, None]


def distance(predicted: torch.Tensor, seen: torch.Tensor) -> torch.Tensor:
    """BYOL's loss: 2 - 2 cos."""
    return 2 - 2 * functional.cosine_similarity(predicted, seen, dim=-1).mean()

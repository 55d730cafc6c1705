"""The networks in PyTorch, with channels first and Keras' initial values."""

from itertools import pairwise
from typing import Any

import torch
from torch import nn

from benchmarks.workloads import Workload


def networks(workload: Workload) -> dict[str, nn.Module]:
    """The networks of a workload by name."""
    found = _BUILDERS[workload.kind](**workload.sizes)
    for network in found.values():
        network.apply(_initialize)
    return found


@torch.no_grad()
def _initialize(layer: nn.Module) -> None:
    if isinstance(layer, nn.Linear | nn.Conv2d | nn.ConvTranspose2d):
        nn.init.xavier_uniform_(layer.weight)
        if layer.bias is not None:
            nn.init.zeros_(layer.bias)


def dense(inputs: int, hidden: tuple[int, ...], outputs: int) -> nn.Module:
    """Hidden layers with rectifiers and a linear last one."""
    stack: list[nn.Module] = []
    for units in hidden:
        stack += [nn.Linear(inputs, units), nn.ReLU()]
        inputs = units
    return nn.Sequential(*stack, nn.Linear(inputs, outputs))


def _mlp(inputs: int, hidden: tuple[int, ...], outputs: int) -> dict[str, nn.Module]:
    return {"model": dense(inputs, hidden, outputs)}


def _vae(inputs: int, hidden: int, latent: int) -> dict[str, nn.Module]:
    return {
        "encoder": dense(inputs, (hidden,), 2 * latent),
        "decoder": dense(latent, (hidden,), inputs),
    }


def _generator(image: Any, latent: int, start: int, up: tuple[int, ...]) -> nn.Module:
    size = start * start * up[0]
    stack: list[nn.Module] = [nn.Linear(latent, size, bias=False), nn.BatchNorm1d(size)]
    stack += [nn.LeakyReLU(0.2), nn.Unflatten(1, (up[0], start, start))]
    for before, width in pairwise(up):
        stack.append(nn.ConvTranspose2d(before, width, 4, 2, 1, bias=False))
        stack += [nn.BatchNorm2d(width), nn.LeakyReLU(0.2)]
    return nn.Sequential(*stack, nn.ConvTranspose2d(up[-1], image[-1], 4, 2, 1), nn.Sigmoid())


def _judge(image: Any, down: tuple[int, ...], norm: bool) -> nn.Module:
    stack: list[nn.Module] = []
    size, before = image[0], image[-1]
    for i, width in enumerate(down):
        normed = norm and i > 0
        stack.append(nn.Conv2d(before, width, 4, 2, 1, bias=not normed))
        stack += [*([nn.BatchNorm2d(width)] if normed else []), nn.LeakyReLU(0.2)]
        size, before = size // 2, width
    return nn.Sequential(*stack, nn.Flatten(), nn.Linear(before * size * size, 1))


def _gan(image: Any, latent: int, start: int, up: Any, down: Any) -> dict[str, nn.Module]:
    generator = _generator(image, latent, start, up)
    return {"generator": generator, "discriminator": _judge(image, down, norm=True)}


def _wgan_gp(image: Any, latent: int, start: int, up: Any, down: Any) -> dict[str, nn.Module]:
    generator = _generator(image, latent, start, up)
    return {"generator": generator, "critic": _judge(image, down, norm=False)}


def _head(inputs: int, features: int, outputs: int) -> list[nn.Module]:
    hidden = [nn.Linear(inputs, features, bias=False), nn.BatchNorm1d(features), nn.ReLU()]
    return [*hidden, nn.Linear(features, outputs)]


def _byol(image: Any, down: Any, features: int, projection: int) -> dict[str, nn.Module]:
    stack: list[nn.Module] = []
    size, before = image[0], image[-1]
    for width in down:
        stack += [nn.Conv2d(before, width, 4, 2, 1, bias=False), nn.BatchNorm2d(width), nn.ReLU()]
        size, before = size // 2, width
    stack += [nn.Flatten(), nn.Linear(before * size * size, features)]
    online = nn.Sequential(*stack, *_head(features, features, projection))
    return {"online": online, "predictor": nn.Sequential(*_head(projection, features, projection))}


_BUILDERS = {"mlp": _mlp, "vae": _vae, "gan": _gan, "wgan_gp": _wgan_gp, "byol": _byol}

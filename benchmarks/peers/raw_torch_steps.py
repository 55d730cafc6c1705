"""The steps in plain PyTorch."""

import copy
from typing import Any

import torch

from benchmarks.networks.torch import networks
from benchmarks.peers import torch_losses as losses
from benchmarks.workloads import CRITIC_STEPS, EPSILON, MOMENTUM, PENALTY, Workload

Losses = dict[str, torch.Tensor]


class Step:
    """Networks, optimizers and the step of a workload."""

    def __init__(self, workload: Workload, device: str, layout: Any, compiled: bool) -> None:
        self.workload, self.device = workload, device
        self.networks = networks(workload)
        for network in self.networks.values():
            network.to(device, memory_format=layout)
        self.run = dict(self.networks)
        for name in self.networks if compiled else ():
            if name != "critic":
                self.run[name] = torch.compile(self.networks[name])
        self.prepare()

    def prepare(self) -> None:
        """Makes the optimizers, by default one for all weights."""
        self.optimizer = self.adam(*self.networks.values())

    def adam(self, *trained: torch.nn.Module) -> torch.optim.Optimizer:
        """An optimizer of some networks."""
        weights = [weight for network in trained for weight in network.parameters()]
        rate, betas = self.workload.rate, self.workload.betas
        return torch.optim.Adam(weights, rate, betas, eps=EPSILON, fused=True)

    def descend(self, loss: torch.Tensor, optimizer: torch.optim.Optimizer) -> torch.Tensor:
        """One update; the loss without its graph."""
        optimizer.zero_grad(set_to_none=True)
        loss.backward()
        optimizer.step()
        return loss.detach()

    def forward(self) -> Any:
        """The context in which networks run and losses are taken."""
        return torch.autocast(self.device, torch.bfloat16, enabled=self.workload.bfloat16)


class MLP(Step):
    """A regression."""

    def __call__(self, x: torch.Tensor, y: torch.Tensor) -> Losses:
        """One step."""
        loss = torch.nn.functional.mse_loss(self.run["model"](x), y)
        return {"loss": self.descend(loss, self.optimizer)}


class VAE(Step):
    """An encoder and a decoder."""

    def __call__(self, images: torch.Tensor) -> Losses:
        """One step."""
        loss = losses.elbo(images, self.run["encoder"](images), self.run["decoder"])
        return {"loss": self.descend(loss, self.optimizer)}


class GAN(Step):
    """The discriminator on real and detached fake images, then the generator."""

    def prepare(self) -> None:
        """See `Step`."""
        self.optimizers = {name: self.adam(net) for name, net in self.networks.items()}

    def noise(self, images: torch.Tensor) -> torch.Tensor:
        """A batch of noise."""
        return torch.randn(len(images), self.workload.sizes["latent"], device=images.device)

    def __call__(self, images: torch.Tensor) -> Losses:
        """One step."""
        judge = self.run["discriminator"]
        with self.forward():
            fakes = self.run["generator"](self.noise(images))
            d_loss = losses.real(judge(images)) + losses.fake(judge(fakes.detach()))
        found = {"discriminator": self.descend(d_loss, self.optimizers["discriminator"])}
        with self.forward():
            g_loss = losses.real(judge(fakes))
        return found | {"generator": self.descend(g_loss, self.optimizers["generator"])}


class WGANGP(GAN):
    """The critic several times, then the generator."""

    def __call__(self, images: torch.Tensor) -> Losses:
        """One step."""
        for _ in range(CRITIC_STEPS):
            d_loss = self.descend(self.critic_loss(images), self.optimizers["critic"])
        g_loss = -self.run["critic"](self.run["generator"](self.noise(images))).mean()
        return {"critic": d_loss, "generator": self.descend(g_loss, self.optimizers["generator"])}

    def critic_loss(self, images: torch.Tensor) -> torch.Tensor:
        """Score and penalty."""
        critic = self.run["critic"]
        with torch.no_grad():
            fakes = self.run["generator"](self.noise(images))
        score = critic(fakes).mean() - critic(images).mean()
        return score + PENALTY * losses.penalty(critic, images, fakes)


class BYOL(Step):
    """An online network, a predictor, and a target that follows."""

    def prepare(self) -> None:
        """See `Step`."""
        super().prepare()
        self.target = copy.deepcopy(self.networks["online"]).requires_grad_(False)
        self.see = torch.compile(self.target) if self.run != self.networks else self.target

    def __call__(self, images: torch.Tensor) -> Losses:
        """One step."""
        views = [losses.view(images) for _ in range(2)]
        with torch.no_grad():
            seen_a, seen_b = [self.see(view) for view in views]
        a, b = [self.run["predictor"](self.run["online"](view)) for view in views]
        loss = losses.distance(a, seen_b) + losses.distance(b, seen_a)
        found = self.descend(loss, self.optimizer)
        self.follow()
        return {"loss": found}

    @torch.no_grad()
    def follow(self) -> None:
        """Moves the target towards the online network."""
        target, source = self.target.parameters(), self.networks["online"].parameters()
        torch._foreach_lerp_(list(target), list(source), 1 - MOMENTUM)


STEPS = {"mlp": MLP, "vae": VAE, "gan": GAN, "wgan_gp": WGANGP, "byol": BYOL}

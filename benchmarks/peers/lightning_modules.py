"""The workloads in Lightning, as its documentation writes them.

Automatic optimization where there is one optimizer. Where there are two, manual optimization with
`toggle_optimizer`, the generator first, as in its GAN: so the fakes are made once, and neither
update computes gradients of the other network.
"""

import copy
from typing import Any

import lightning
import torch

from benchmarks.networks.torch import networks
from benchmarks.peers import torch_losses as losses
from benchmarks.workloads import CRITIC_STEPS, EPSILON, MOMENTUM, PENALTY, Workload


class Module(lightning.LightningModule):
    """Networks and one optimizer of all their weights."""

    def __init__(self, workload: Workload) -> None:
        super().__init__()
        self.workload = workload
        for name, network in networks(workload).items():
            setattr(self, name, network)
        self.made: Any = None

    def configure_optimizers(self) -> Any:
        """The same optimizers for each segment, so that their state lives on."""
        self.made = self.made or self.make_optimizers()
        return self.made

    def make_optimizers(self) -> Any:
        """One optimizer of all weights."""
        return self.adam(self)

    def adam(self, network: torch.nn.Module) -> torch.optim.Optimizer:
        """An optimizer of a network."""
        weights = [weight for weight in network.parameters() if weight.requires_grad]
        return torch.optim.Adam(weights, self.workload.rate, self.workload.betas, eps=EPSILON)

    def note(self, name: str, loss: torch.Tensor) -> None:
        """Logs the mean of a loss over the epoch."""
        self.log(name, loss, on_step=False, on_epoch=True, batch_size=self.workload.batch)


class MLP(Module):
    """A regression."""

    def training_step(self, batch: Any, batch_idx: int) -> torch.Tensor:
        x, y = batch
        loss = torch.nn.functional.mse_loss(self.model(x), y)
        self.note("loss", loss)
        return loss


class VAE(Module):
    """An encoder and a decoder."""

    def training_step(self, batch: Any, batch_idx: int) -> torch.Tensor:
        [images] = batch
        loss = losses.elbo(images, self.encoder(images), self.decoder)
        self.note("loss", loss)
        return loss


class GAN(Module):
    """A generator and a discriminator."""

    def __init__(self, workload: Workload) -> None:
        super().__init__(workload)
        self.automatic_optimization = False

    def make_optimizers(self) -> Any:
        """One optimizer each."""
        return [self.adam(self.generator), self.adam(self.discriminator)]

    def noise(self, images: torch.Tensor) -> torch.Tensor:
        """A batch of noise."""
        size = (len(images), self.workload.sizes["latent"])
        return torch.randn(size, device=self.device)

    def descend(self, optimizer: Any, loss: torch.Tensor) -> None:
        """One update by a toggled optimizer."""
        self.manual_backward(loss)
        optimizer.step()
        optimizer.zero_grad()
        self.untoggle_optimizer(optimizer)

    def training_step(self, batch: Any, batch_idx: int) -> None:
        [images] = batch
        g_optimizer, d_optimizer = self.optimizers()

        self.toggle_optimizer(g_optimizer)
        fakes = self.generator(self.noise(images))
        g_loss = losses.real(self.discriminator(fakes))
        self.note("generator", g_loss)
        self.descend(g_optimizer, g_loss)

        self.toggle_optimizer(d_optimizer)
        d_loss = losses.real(self.discriminator(images))
        d_loss = d_loss + losses.fake(self.discriminator(fakes.detach()))
        self.note("discriminator", d_loss)
        self.descend(d_optimizer, d_loss)


class WGANGP(GAN):
    """A generator and a critic."""

    def make_optimizers(self) -> Any:
        """One optimizer each."""
        return [self.adam(self.generator), self.adam(self.critic)]

    def training_step(self, batch: Any, batch_idx: int) -> None:
        [images] = batch
        g_optimizer, d_optimizer = self.optimizers()
        for _ in range(CRITIC_STEPS):
            self.toggle_optimizer(d_optimizer)
            d_loss = self.critic_loss(images)
            self.descend(d_optimizer, d_loss)
        self.note("critic", d_loss)

        self.toggle_optimizer(g_optimizer)
        g_loss = -self.critic(self.generator(self.noise(images))).mean()
        self.note("generator", g_loss)
        self.descend(g_optimizer, g_loss)

    def critic_loss(self, images: torch.Tensor) -> torch.Tensor:
        """Score and penalty."""
        with torch.no_grad():
            fakes = self.generator(self.noise(images))
        score = self.critic(fakes).mean() - self.critic(images).mean()
        return score + PENALTY * losses.penalty(self.critic, images, fakes)


class BYOL(Module):
    """An online network, a predictor, and a target that follows."""

    def __init__(self, workload: Workload) -> None:
        super().__init__(workload)
        self.target = copy.deepcopy(self.online).requires_grad_(False)

    def training_step(self, batch: Any, batch_idx: int) -> torch.Tensor:
        views = [losses.view(batch[0]) for _ in range(2)]
        with torch.no_grad():
            seen_a, seen_b = [self.target(view) for view in views]
        a, b = [self.predictor(self.online(view)) for view in views]
        loss = losses.distance(a, seen_b) + losses.distance(b, seen_a)
        self.note("loss", loss)
        return loss

    @torch.no_grad()
    def on_train_batch_end(self, *args: Any) -> None:
        for target, source in zip(self.target.parameters(), self.online.parameters(), strict=True):
            target.lerp_(source, 1 - MOMENTUM)


MODULES = {"mlp": MLP, "vae": VAE, "gan": GAN, "wgan_gp": WGANGP, "byol": BYOL}

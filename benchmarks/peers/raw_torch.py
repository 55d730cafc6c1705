"""A loop in plain PyTorch, as an expert writes it, and what Lightning shares with it.

The loop has a fused Adam, and no wait in any step. With the option `compile`, the networks are
under `torch.compile`. The critic of WGAN-GP is not: `torch.compile` does not differentiate twice.
"""

import contextlib
import copy
import functools
from collections.abc import Iterable
from typing import Any

import torch
from torch.nn import functional

from benchmarks.networks.torch import networks
from benchmarks.peers import steps
from benchmarks.program import Program, torch_batches, torch_loader
from benchmarks.workloads import EPSILON, MOMENTUM

Tensor = torch.Tensor


class TorchProgram(Program):
    """Networks, the target of BYOL, and an optimizer of what each loss trains."""

    def batches(self) -> list[tuple[Any, ...]]:
        return torch_batches(self.given, self.device, channels_first=True)

    def build(self, layout: Any = torch.preserve_format, **options: Any) -> None:
        self.at = "cuda" if self.device == "gpu" else "cpu"
        made = networks(self.workload)
        self.nets = {name: net.to(self.at, memory_format=layout) for name, net in made.items()}
        rate, betas = self.workload.rate, self.workload.betas
        self.optimizers = {}
        for loss, names in steps.trained(self.workload).items():
            weights = [weight for name in names for weight in self.nets[name].parameters()]
            self.optimizers[loss] = torch.optim.Adam(weights, rate, betas, eps=EPSILON, **options)
        self.trained = {name: list(net.parameters()) for name, net in self.nets.items()}
        if "online" in self.nets:
            self.nets["target"] = copy.deepcopy(self.nets["online"]).requires_grad_(False)

    def weights(self) -> dict[str, Iterable[Any]]:
        return self.trained

    def bound(self, gan: Any, nets: Any) -> Any:
        """The step of the workload with its networks; that of the GAN is given."""
        step = gan if self.workload.kind == "gan" else steps.STEPS[self.workload.kind]
        return functools.partial(step, TorchFunctions(self.workload.sizes.get("latent")), nets)

    @torch.no_grad()
    def follow(self) -> None:
        """Moves the target of BYOL towards the online network."""
        if "target" in self.nets:
            target = list(self.nets["target"].parameters())
            torch._foreach_lerp_(target, self.trained["online"], 1 - MOMENTUM)


class TorchFunctions(steps.Functions):
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


def gan(f: Any, nets: Any, images: Tensor, generator_first: bool = False) -> steps.Updates:
    """The discriminator on real and detached fake images, and the generator on the same fakes."""
    judge = nets["discriminator"]
    fakes = functools.cache(lambda: nets["generator"](f.noise(images)))
    updates = {
        "discriminator": lambda: f.tell(judge(images), judge(fakes().detach())),
        "generator": lambda: f.fool(judge(fakes())),
    }
    yield from reversed(updates.items()) if generator_first else updates.items()


class RawTorch(TorchProgram):
    """The loop and its step."""

    def build(self) -> None:
        half = self.workload.bfloat16
        # In bfloat16, convolutions are faster with channels last.
        self.layout = torch.channels_last if half else torch.preserve_format
        super().build(self.layout, fused=True)
        self.forward = torch.autocast(self.at, torch.bfloat16) if half else contextlib.nullcontext()
        called, compiles = dict(self.nets), self.options.get("compile", False)
        for name in called.keys() - {"critic"} if compiles else ():
            called[name] = torch.compile(called[name])
        self.step = self.bound(gan, called)

    def train(self, segment: Any) -> dict[str, float]:
        totals: dict[str, Any] = {}
        for batch in torch_loader(segment):
            found = self.update([self.to_device(x) for x in batch])
            totals = {name: totals.get(name, 0) + loss for name, loss in found.items()}
        return {name: float(total) / len(segment) for name, total in totals.items()}

    def to_device(self, x: Tensor) -> Tensor:
        layout = self.layout if x.ndim == 4 else torch.preserve_format
        return x.to(self.at, non_blocking=True, memory_format=layout)

    def update(self, batch: list[Tensor]) -> dict[str, Tensor]:
        """One step; the losses without their graphs."""
        found = {}
        for name, loss_of in self.step(*batch):
            with self.forward:
                loss = loss_of()
            self.optimizers[name].zero_grad(set_to_none=True)
            loss.backward()
            self.optimizers[name].step()
            found[name] = loss.detach()
        self.follow()
        return found

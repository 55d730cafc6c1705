"""A loop in plain PyTorch, as an expert writes it: fused Adam, and no wait in any step.

With the option `compile`, the networks are under `torch.compile`. The critic of WGAN-GP is not:
`torch.compile` does not differentiate twice.
"""

import contextlib
import copy
from collections.abc import Iterable
from typing import Any

import torch

from benchmarks import feeds
from benchmarks.networks.torch import networks
from benchmarks.peers import steps
from benchmarks.peers.torch_functions import TorchFunctions, gan
from benchmarks.program import Program
from benchmarks.workloads import EPSILON, MOMENTUM

STEPS = steps.STEPS | {"gan": gan}


class RawTorch(Program):
    """The loop and its step."""

    def batches(self) -> list[tuple[Any, ...]]:
        return feeds.torch_batches(self.given, self.device, True)

    def build(self) -> None:
        self.at = "cuda" if self.device == "gpu" else "cpu"
        half = self.workload.bfloat16
        self.forward = torch.autocast(self.at, torch.bfloat16) if half else contextlib.nullcontext()
        # In bfloat16, convolutions are faster with channels last.
        self.layout = torch.channels_last if half else torch.preserve_format
        self.networks = networks(self.workload)
        for network in self.networks.values():
            network.to(self.at, memory_format=self.layout)
        trained = steps.trained(self.workload)
        self.optimizers = {loss: self.adam(names) for loss, names in trained.items()}
        self.step, f = STEPS[self.workload.kind], TorchFunctions(self.workload.sizes.get("latent"))
        self.step_of = (f, self.called())

    def called(self) -> dict[str, Any]:
        """The networks as they are called, and the target of BYOL."""
        called = dict(self.networks)
        if "online" in called:
            self.target = copy.deepcopy(called["online"]).requires_grad_(False)
            called["target"] = self.target
        compiles = self.options.get("compile", False)
        return {n: torch.compile(c) if compiles and n != "critic" else c for n, c in called.items()}

    def adam(self, names: list[str]) -> torch.optim.Optimizer:
        """An optimizer of some networks."""
        weights = [weight for name in names for weight in self.networks[name].parameters()]
        rate, betas = self.workload.rate, self.workload.betas
        return torch.optim.Adam(weights, rate, betas, eps=EPSILON, fused=True)

    def train(self, segment: Any) -> dict[str, float]:
        totals: dict[str, Any] = {}
        for batch in feeds.torch_loader(segment):
            found = self.update([self.to_device(x) for x in batch])
            totals = {name: totals.get(name, 0) + loss for name, loss in found.items()}
        return {name: float(total) / len(segment) for name, total in totals.items()}

    def to_device(self, x: torch.Tensor) -> torch.Tensor:
        """The tensor where the networks are."""
        layout = self.layout if x.ndim == 4 else torch.preserve_format
        return x.to(self.at, non_blocking=True, memory_format=layout)

    def update(self, batch: list[torch.Tensor]) -> dict[str, torch.Tensor]:
        """One step; the losses without their graphs."""
        found = {}
        for name, loss_of in self.step(*self.step_of, *batch):
            with self.forward:
                loss = loss_of()
            self.optimizers[name].zero_grad(set_to_none=True)
            loss.backward()
            self.optimizers[name].step()
            found[name] = loss.detach()
        if "online" in self.networks:
            self.follow()
        return found

    @torch.no_grad()
    def follow(self) -> None:
        """Moves the target towards the online network."""
        target, source = self.target.parameters(), self.networks["online"].parameters()
        torch._foreach_lerp_(list(target), list(source), 1 - MOMENTUM)

    def weights(self) -> dict[str, Iterable[Any]]:
        return {name: net.parameters() for name, net in self.networks.items()}

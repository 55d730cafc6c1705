"""The workloads in Lightning, as its documentation writes them.

Automatic optimization where there is one optimizer. Where there are two, manual optimization with
`toggle_optimizer`, the generator of the GAN first, as in its example: so the fakes are made once,
and neither update computes gradients of the other network.
"""

import copy
import logging
from collections.abc import Iterable
from typing import Any

import lightning
import torch

from benchmarks import feeds
from benchmarks.networks.layers import describe
from benchmarks.networks.torch import networks
from benchmarks.peers import steps
from benchmarks.peers.torch_functions import TorchFunctions, generator_first
from benchmarks.program import Program
from benchmarks.workloads import EPSILON, MOMENTUM, Workload

STEPS = steps.STEPS | {"gan": generator_first}
QUIET = ("logger", "enable_checkpointing", "enable_progress_bar", "enable_model_summary")
logging.getLogger("lightning.pytorch").setLevel(logging.ERROR)


class Lightning(Program):
    """A trainer for each segment, around the same module."""

    def batches(self) -> list[tuple[Any, ...]]:
        return feeds.torch_batches(self.given, self.device, True)

    def build(self) -> None:
        self.module = Module(self.workload)

    def trainer(self) -> lightning.Trainer:
        """A trainer for one epoch that writes and shows nothing."""
        precision = "bf16-mixed" if self.workload.bfloat16 else "32-true"
        options = {"accelerator": self.device, "devices": 1, "precision": precision}
        return lightning.Trainer(max_epochs=1, **options, **dict.fromkeys(QUIET, False))

    def train(self, segment: Any) -> dict[str, float]:
        trainer = self.trainer()
        trainer.fit(self.module, feeds.torch_loader(segment))
        return {name: float(value) for name, value in trainer.callback_metrics.items()}

    def weights(self) -> dict[str, Iterable[Any]]:
        return {name: self.module.nets[name].parameters() for name in describe(self.workload)}


class Module(lightning.LightningModule):
    """A workload."""

    def __init__(self, workload: Workload) -> None:
        super().__init__()
        self.workload, self.nets = workload, torch.nn.ModuleDict(networks(workload))
        if "online" in self.nets:
            self.nets["target"] = copy.deepcopy(self.nets["online"]).requires_grad_(False)
        self.trained = steps.trained(workload)
        self.automatic_optimization = len(self.trained) == 1
        # The same optimizers for each segment, so that their state lives on.
        self.adams = {loss: self.adam(names) for loss, names in self.trained.items()}
        self.f = TorchFunctions(workload.sizes.get("latent"))

    def adam(self, names: list[str]) -> torch.optim.Optimizer:
        """An optimizer of some networks."""
        weights = [weight for name in names for weight in self.nets[name].parameters()]
        return torch.optim.Adam(weights, self.workload.rate, self.workload.betas, eps=EPSILON)

    def configure_optimizers(self) -> Any:
        return list(self.adams.values())

    def training_step(self, batch: Any, batch_idx: int) -> Any:
        updates = STEPS[self.workload.kind](self.f, self.nets, *batch)
        if self.automatic_optimization:
            [(name, loss_of)] = updates
            found = {name: loss_of()}
        else:
            optimizers = dict(zip(self.trained, self.optimizers(), strict=True))
            found = {name: self.update(optimizers[name], loss_of) for name, loss_of in updates}
        for name, loss in found.items():
            self.log(name, loss, on_step=False, on_epoch=True, batch_size=self.workload.batch)
        return found.get("loss")

    def update(self, optimizer: Any, loss_of: Any) -> torch.Tensor:
        """One update by a toggled optimizer; its loss."""
        self.toggle_optimizer(optimizer)
        loss = loss_of()
        self.manual_backward(loss)
        optimizer.step()
        optimizer.zero_grad()
        self.untoggle_optimizer(optimizer)
        return loss

    @torch.no_grad()
    def on_train_batch_end(self, *args: Any) -> None:
        """Moves the target of BYOL towards the online network."""
        if "target" in self.nets:
            target, source = self.nets["target"].parameters(), self.nets["online"].parameters()
            for mine, its in zip(target, source, strict=True):
                mine.lerp_(its, 1 - MOMENTUM)

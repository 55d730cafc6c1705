"""The workloads in Lightning, as its documentation writes them.

Automatic optimization where there is one optimizer. Where there are two, manual optimization with
`toggle_optimizer`, the generator of the GAN first, as in its example: so the fakes are made once,
and neither update computes gradients of the other network.
"""

import logging
from functools import partial
from typing import Any

import lightning
import torch

from benchmarks.peers.raw_torch import TorchProgram, gan
from benchmarks.program import torch_loader

QUIET = ("logger", "enable_checkpointing", "enable_progress_bar", "enable_model_summary")
logging.getLogger("lightning.pytorch").setLevel(logging.ERROR)


class Lightning(TorchProgram):
    """A trainer of one epoch for each segment, around the same module and its optimizers."""

    def build(self) -> None:
        super().build()
        self.module = Module(self)

    def train(self, segment: Any) -> dict[str, float]:
        precision = "bf16-mixed" if self.workload.bfloat16 else "32-true"
        options = {"accelerator": self.device, "devices": 1, "precision": precision}
        trainer = lightning.Trainer(max_epochs=1, **options, **dict.fromkeys(QUIET, False))
        trainer.fit(self.module, torch_loader(segment))
        return {name: float(value) for name, value in trainer.callback_metrics.items()}


class Module(lightning.LightningModule):
    """A workload."""

    def __init__(self, program: TorchProgram) -> None:
        super().__init__()
        self.program, self.nets = program, torch.nn.ModuleDict(program.nets)
        self.automatic_optimization = len(program.optimizers) == 1
        self.step = program.bound(partial(gan, generator_first=True), self.nets)

    def configure_optimizers(self) -> Any:
        return list(self.program.optimizers.values())

    def training_step(self, batch: Any, batch_idx: int) -> Any:
        if self.automatic_optimization:
            found = {name: loss_of() for name, loss_of in self.step(*batch)}
        else:
            optimizers = dict(zip(self.program.optimizers, self.optimizers(), strict=True))
            updates = self.step(*batch)
            found = {name: self.update(optimizers[name], loss_of) for name, loss_of in updates}
        for name, loss in found.items():
            self.log(name, loss, on_step=False, on_epoch=True, batch_size=len(batch[0]))
        return found.get("loss")

    def update(self, optimizer: Any, loss_of: Any) -> torch.Tensor:
        self.toggle_optimizer(optimizer)
        loss = loss_of()
        self.manual_backward(loss)
        optimizer.step()
        optimizer.zero_grad()
        self.untoggle_optimizer(optimizer)
        return loss

    def on_train_batch_end(self, *args: Any) -> None:
        self.program.follow()

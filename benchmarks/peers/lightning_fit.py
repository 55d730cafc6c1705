"""The program that trains by Lightning's `Trainer`."""

import logging
from typing import Any

import lightning

from benchmarks import feeds
from benchmarks.peers.lightning_modules import MODULES
from benchmarks.program import Program

logging.getLogger("lightning.pytorch").setLevel(logging.ERROR)


class Lightning(Program):
    """A trainer for each segment, around the same module."""

    def batches(self) -> list[tuple[Any, ...]]:
        """See `Program`."""
        return feeds.torch_batches(self.setting.batches, self.setting.device, True)

    def build(self) -> None:
        """See `Program`."""
        self.module = MODULES[self.workload.kind](self.workload)

    def trainer(self) -> lightning.Trainer:
        """A trainer for one epoch that writes and shows nothing."""
        return lightning.Trainer(
            accelerator=self.setting.device,
            devices=1,
            precision="bf16-mixed" if self.workload.bfloat16 else "32-true",
            max_epochs=1,
            logger=False,
            enable_checkpointing=False,
            enable_progress_bar=False,
            enable_model_summary=False,
        )

    def train(self, segment: Any) -> dict[str, float]:
        """See `Program`."""
        trainer = self.trainer()
        trainer.fit(self.module, feeds.torch_loader(segment))
        return {name: float(value) for name, value in trainer.callback_metrics.items()}

    def parameters(self) -> dict[str, int]:
        """See `Program`."""
        return {
            name: sum(weight.numel() for weight in getattr(self.module, name).parameters())
            for name in self.workload.networks
        }

    def operations(self, segment: Any) -> float | None:
        """See `Program`."""
        from torch.utils.flop_counter import FlopCounterMode

        with FlopCounterMode(display=False) as counter:
            self.train(segment)
        return float(counter.get_total_flops())

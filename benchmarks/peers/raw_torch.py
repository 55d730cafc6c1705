"""A loop in plain PyTorch, as an expert writes it: fused Adam, and no wait in any step.

With the option `compile`, the networks are under `torch.compile`. The critic of WGAN-GP is not:
`torch.compile` does not differentiate twice.
"""

from typing import Any

import torch

from benchmarks import feeds
from benchmarks.peers.raw_torch_steps import STEPS
from benchmarks.program import Program


class RawTorch(Program):
    """The loop around the step."""

    def batches(self) -> list[tuple[Any, ...]]:
        """See `Program`."""
        return feeds.torch_batches(self.setting.batches, self.setting.device, True)

    def build(self) -> None:
        """See `Program`."""
        self.device = "cuda" if self.setting.device == "gpu" else "cpu"
        # In bfloat16, convolutions are faster with channels last.
        last = self.workload.bfloat16
        self.layout = torch.channels_last if last else torch.preserve_format
        compiled = self.setting.options.get("compile", False)
        self.step = STEPS[self.workload.kind](self.workload, self.device, self.layout, compiled)

    def train(self, segment: Any) -> dict[str, float]:
        """See `Program`."""
        totals: dict[str, torch.Tensor] = {}
        for batch in feeds.torch_loader(segment):
            found = self.step(*(self.to_device(x) for x in batch))
            totals = {name: totals.get(name, 0) + loss for name, loss in found.items()}
        return {name: float(total) / len(segment) for name, total in totals.items()}

    def to_device(self, x: torch.Tensor) -> torch.Tensor:
        """The tensor where the networks are."""
        layout = self.layout if x.ndim == 4 else torch.preserve_format
        return x.to(self.device, non_blocking=True, memory_format=layout)

    def parameters(self) -> dict[str, int]:
        """See `Program`."""
        return {
            name: sum(weight.numel() for weight in network.parameters())
            for name, network in self.step.networks.items()
        }

    def operations(self, segment: Any) -> float | None:
        """See `Program`; a compiled network is not looked into."""
        if self.setting.options.get("compile"):
            return None
        from torch.utils.flop_counter import FlopCounterMode

        with FlopCounterMode(display=False) as counter:
            self.train(segment)
        return float(counter.get_total_flops())

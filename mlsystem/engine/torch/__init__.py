"""The engine on PyTorch."""

from mlsystem.engine.torch.engine import TorchEngine

__all__ = ["TorchEngine"]

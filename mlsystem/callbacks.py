"""Callbacks for the `fit` of models and systems."""

from mlsystem.checkpoint import Checkpoint

__all__ = ["Checkpoint"]

"""The engine on TensorFlow."""

from mlsystem.engine.tensorflow.engine import TensorFlowEngine

__all__ = ["TensorFlowEngine"]

"""The engine on JAX."""

from mlsystem.engine.jax.engine import JaxEngine

__all__ = ["JaxEngine"]

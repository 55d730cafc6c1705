"""Pictures of systems and of their training.

- `system`: draws a system: its models, its losses, and which model follows which loss.
"""

from mlsystem.plot.picture import Picture, system

__all__ = ["Picture", "system"]

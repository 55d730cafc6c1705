"""Pictures of systems and of their training."""

"""`Live`: the state of a training run, as a table in a terminal or a figure in a notebook."""

from mlsystem.callbacks.live.callback import Live

__all__ = ["Live"]

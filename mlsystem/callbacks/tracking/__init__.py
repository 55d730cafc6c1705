"""`Log`: send a training run to an experiment tracker."""

from mlsystem.callbacks.tracking.callback import Log

__all__ = ["Log"]

"""`RunCallback`: base class of callbacks that show or store each `fit` by a run of their own."""

from typing import Any

from mlsystem.callbacks.batch_callback import BatchCallback, check_whole
from mlsystem.callbacks.meter import Meter
from mlsystem.engine import engine


class RunCallback(BatchCallback):
    """A callback whose `follow` makes a run for each `fit`, which the other hooks hand on to.

    Attributes:
        gradients: whether to measure gradients and updates, in one process.
    """

    gradients: bool
    _run: Any = None

    def set_model(self, model: Any) -> None:
        """Check that the model is an MLModel or MLSystem, and store it. Keras calls this."""
        check_whole(self, model)
        super().set_model(model)

    def on_train_begin(self, logs: Any = None) -> None:
        """Check that `fit` called `follow`, and prepare to measure. See Keras."""
        if self._run is None:
            raise ValueError(
                f"{type(self).__name__} needs the `fit` of an MLModel or MLSystem, and its "
                "callbacks as a list."
            )
        if self.gradients and engine.replicas.count == 1:
            self._run.meter = Meter(self.model)

    def on_epoch_end(self, epoch: int, logs: Any = None) -> None:
        """Show or store the logs of the epoch. See Keras."""
        self._now().end_epoch(logs or {})

    def on_train_end(self, logs: Any = None) -> None:
        """Show or store how training ended. See Keras."""
        self._now().end()

    def close(self) -> None:
        """Close the run. See `BatchCallback`."""
        run, self._run = self._run, None
        if run is not None:
            run.close()

    def _now(self) -> Any:
        assert self._run is not None
        return self._run

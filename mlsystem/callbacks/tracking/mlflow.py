"""`MLflow`: a run of an MLflow experiment."""

import contextlib
import os
import time
from collections.abc import Iterator, Mapping
from typing import Any

from mlsystem.callbacks.tracking.target import Charts, Target

_RETRIES = "MLFLOW_HTTP_REQUEST_MAX_RETRIES"
_LONGEST = 500  # letters of a parameter that every store of MLflow takes
_MOST = 100  # parameters in one request


class MLflow(Target):
    """An experiment at MLflow's tracking URI. MLflow's own active run is left alone."""

    package = "mlflow"
    advice = "Start the server, set MLFLOW_TRACKING_URI=sqlite:///mlflow.db"

    def start(self, title: str, run: str | None, step: int, charts: Charts) -> str:
        """Open a run, and the experiment if it does not exist."""
        from mlflow import MlflowClient

        self.client = MlflowClient()
        with _impatient():
            if run:
                self.client.update_run(run, status="RUNNING")
                self.id = run
            else:
                self.id = self.client.create_run(self._experiment(title)).info.run_id
        return self.id

    def _experiment(self, title: str) -> str:
        name = self.place or title
        found = self.client.get_experiment_by_name(name)
        return str(found.experiment_id if found else self.client.create_experiment(name))

    def configuration(self, values: Mapping[str, Any]) -> None:
        """Write parameters."""
        from mlflow.entities import Param

        params = [Param(name, str(value)[:_LONGEST]) for name, value in values.items()]
        with _impatient():
            for first in range(0, len(params), _MOST):
                self.client.log_batch(self.id, params=params[first : first + _MOST])

    def log(self, values: Mapping[str, float], step: int) -> None:
        """Write metrics in one request."""
        from mlflow.entities import Metric

        now = int(time.time() * 1000)
        metrics = [Metric(name, value, now, step) for name, value in values.items()]
        with _impatient():
            self.client.log_batch(self.id, metrics=metrics)

    def image(self, name: str, pixels: Any, step: int) -> None:
        """Write an image that MLflow shows with a slider over the steps."""
        with _impatient():
            self.client.log_image(self.id, pixels, key=name, step=step)

    def picture(self, picture: Any) -> None:
        """Write an SVG file."""
        with _impatient():
            self.client.log_text(self.id, picture.svg, "picture.svg")

    def end(self, failed: bool) -> None:
        """Set the status of the run."""
        with _impatient():
            self.client.set_terminated(self.id, "FAILED" if failed else "FINISHED")


@contextlib.contextmanager
def _impatient() -> Iterator[None]:
    """Let MLflow try a server that is down for seconds. It would try for minutes."""
    if _RETRIES in os.environ:
        yield
        return
    os.environ[_RETRIES] = "2"
    try:
        yield
    finally:
        os.environ.pop(_RETRIES, None)

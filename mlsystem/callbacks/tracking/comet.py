"""`Comet`: an experiment of Comet."""

from collections.abc import Mapping
from typing import Any

from mlsystem.callbacks.tracking.target import Charts, Target


class Comet(Target):
    """A project of Comet, offline with the variable `COMET_START_ONLINE=0`."""

    package = "comet_ml"
    advice = "Set COMET_API_KEY, set COMET_START_ONLINE=0 to log offline"

    def start(self, title: str, run: str | None, step: int, charts: Charts) -> str:
        """Open an experiment. Comet logs nothing by itself."""
        import comet_ml

        how = {"experiment_key": run, "mode": "get"} if run else {"mode": "create"}
        config = comet_ml.ExperimentConfig(
            auto_metric_logging=False, auto_param_logging=False, log_code=False, parse_args=False
        )
        project = self.place or title
        self.run: Any = comet_ml.start(project_name=project, experiment_config=config, **how)
        if not self.run.alive:
            raise ConnectionError("Comet's server does not answer.")
        return str(self.run.get_key())

    def configuration(self, values: Mapping[str, Any]) -> None:
        """Write the parameters of the experiment."""
        self.run.log_parameters(dict(values), nested_support=False)

    def log(self, values: Mapping[str, float], step: int) -> None:
        """Write one point."""
        self.run.log_metrics(dict(values), step=step)

    def image(self, name: str, pixels: Any, step: int) -> None:
        """Write an image."""
        self.run.log_image(pixels, name=name, step=step)

    def end(self, failed: bool) -> None:
        """End the experiment, and write the archive if it is offline."""
        self.run.end()

"""`WandB`: a run of Weights & Biases."""

from collections.abc import Mapping
from typing import Any

from mlsystem.callbacks.tracking.target import Charts, Target


class WandB(Target):
    """A project of W&B, online or offline as the variable `WANDB_MODE` says."""

    package = "wandb"
    advice = "Log in with `wandb login`, set WANDB_MODE=offline"

    def start(self, title: str, run: str | None, step: int, charts: Charts) -> str:
        """Open a run. The number of batches is a value of its own, so that it may go back."""
        import wandb

        how = {"id": run, "resume": "allow"} if run else {}
        self.run: Any = wandb.init(project=self.place or title, reinit="create_new", **how)
        self.run.define_metric("*", step_metric="batch")
        return str(self.run.id)

    def configuration(self, values: Mapping[str, Any]) -> None:
        """Write the configuration of the run."""
        self.run.config.update(dict(values), allow_val_change=True)

    def log(self, values: Mapping[str, float], step: int) -> None:
        """Write a row of the history."""
        self.run.log({**values, "batch": step})

    def image(self, name: str, pixels: Any, step: int) -> None:
        """Write an image."""
        import wandb

        self.run.log({name: wandb.Image(pixels), "batch": step})

    def best(self, values: Mapping[str, float], step: int) -> None:
        """Write the summary of the run."""
        self.run.summary.update({f"best/{name}": value for name, value in values.items()})

    def end(self, failed: bool) -> None:
        """Finish the run."""
        self.run.finish(exit_code=int(failed))

"""`Trackio`: a run in trackio's database on this machine, or in a Hugging Face Space."""

from collections.abc import Mapping
from typing import Any

from mlsystem.callbacks.tracking.target import Charts, Target


class Trackio(Target):
    """A project of trackio."""

    package = "trackio"

    def start(self, title: str, run: str | None, step: int, charts: Charts) -> str:
        """Open a run. Its name continues it."""
        import trackio

        how = {"name": run, "resume": "must"} if run else {}
        self.run: Any = trackio.init(project=self.place or title, embed=False, **how)
        return str(self.run.name)

    def configuration(self, values: Mapping[str, Any]) -> None:
        """Write the configuration of the run. It is sent with the next point."""
        self.run.config.update(values)

    def log(self, values: Mapping[str, float], step: int) -> None:
        """Write one point."""
        self.run.log(dict(values), step=step)

    def image(self, name: str, pixels: Any, step: int) -> None:
        """Write an image."""
        import trackio

        self.run.log({name: trackio.Image(pixels)}, step=step)

    def end(self, failed: bool) -> None:
        """Finish the run."""
        self.run.finish()

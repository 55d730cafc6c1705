"""`Trackio`: a run in trackio's database on this machine, or in a Hugging Face Space."""

import contextlib
import os
import urllib.error
import urllib.request
from collections.abc import Mapping
from typing import Any

from mlsystem.callbacks.tracking.target import Charts, Target


class Trackio(Target):
    """A project of trackio."""

    package = "trackio"
    advice = "Start the server, unset TRACKIO_SERVER_URL to log on this machine"

    def start(self, title: str, run: str | None, step: int, charts: Charts) -> str:
        """Open a run. Its name continues it."""
        import trackio

        if server := os.environ.get("TRACKIO_SERVER_URL"):
            _check_server(server)
        how = {"name": run, "resume": "must"} if run else {}
        self.run: Any = trackio.init(project=self.place or title, embed=False, **how)
        return str(self.run.name)

    def configuration(self, values: Mapping[str, Any]) -> None:
        """Write the configuration of the run. It is sent with the next point."""
        self.run.config.update(values)

    def resumed(self, values: Mapping[str, Any]) -> None:
        """Write the configuration again. Trackio replaces it when a run is continued."""
        self.configuration(values)

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


def _check_server(url: str) -> None:
    """Raise an error if a server does not answer. Trackio would notice in a thread, later."""
    with contextlib.suppress(urllib.error.HTTPError):  # which is an answer
        urllib.request.urlopen(url.partition("?")[0], timeout=10).close()

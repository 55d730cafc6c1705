"""`Live`: show a training run while it lasts."""

import importlib.util
import numbers
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any

from mlsystem.callbacks.live import surfaces
from mlsystem.callbacks.live.clock import Clock
from mlsystem.callbacks.live.film import Film
from mlsystem.callbacks.live.progress import Progress
from mlsystem.callbacks.live.run import Run
from mlsystem.callbacks.run_callback import RunCallback
from mlsystem.engine import engine

_GROUP = 0.1  # seconds, which a group of steps does not take


class Live(RunCallback):
    """A callback that shows a training run while it lasts, with a row or a panel for each model.

    ```python
    gan.fit(images, epochs=30, callbacks=[ml.callbacks.Live()])
    ```

    - In a terminal: a table with a row for each model.
    - In a notebook: a figure with a panel for each model (needs matplotlib), and the table.
    - In a file or pipe: one line for each epoch.

    The numbers of a model are its loss with a curve, its terms and metrics, the learning rate, the
    number of updates (`steps`) and of `skipped` updates. A loss is its mean over the batches since
    the last update of the view. If `ml.callbacks.Advice` is another callback of the `fit`, its
    advice stands below the table.

    `Live` takes the place of the progress bar, whatever `verbose` is. Training with and without it
    is the same, bit for bit. It reads numbers only when it updates the view. If an update takes
    long, it waits longer than `every`, so that updates take at most 2 % of the time. With several
    processes, the first one prints a line for each epoch, without samples and gradients.

    Args:
        samples: a function without arguments that returns images, as
            `lambda: gan.generator(noise)`. A notebook shows the first four as a strip over the
            epochs. Shapes and numbers are as in `ml.plot.samples`. The number and the size of the
            images stay the same. If they change, a warning says so, and the strip ends there.
        every: seconds between updates.
        gradients: whether to measure the norm of the gradient of each model (`|grad|`), and the
            norm of an update divided by that of the weights (`update`). This takes a forward pass,
            the backward passes of a step, and a copy of the weights, at each update of the view.
            The numbers that `Advice` or `GradientNorms` measure are shown without.
        path: file for the strip of samples, as `samples.png`. A notebook shows the strip without.
            Elsewhere, samples without a file are left out, with a warning.

    Raises:
        ValueError: if an argument has another value, the folder of `path` does not exist, or the
            callback is not given to the `fit` of an MLModel or MLSystem.
    """

    def __init__(
        self,
        samples: Callable[[], Any] | None = None,
        every: float = 5,
        gradients: bool = False,
        path: Any = None,
    ) -> None:
        super().__init__()
        _check(samples, every, path)
        self.samples, self.every, self.gradients = samples, float(every), gradients
        self.path = None if path is None else Path(path)

    def follow(self, callbacks: Any, epoch: Any) -> None:
        """Prepare a new run. See `BatchCallback`."""
        film = None if self.samples is None else self._film(self.samples)
        progress = Progress(
            self.model.name,
            epochs=self.params["epochs"],
            batches=self.params["steps"],
            batch_size=getattr(epoch.data_adapter, "batch_size", None),
        )
        self._run = Run(self.model, Clock(self.every), progress, film, callbacks.parts[0])
        self._run.meet(callbacks.callbacks)

    def _film(self, samples: Callable[[], Any]) -> Film | None:
        if engine.replicas.count > 1:
            return None
        if self.path is None and not surfaces.in_notebook():
            warnings.warn(
                "Live shows samples in notebooks only. Give the file to write them to, as "
                "Live(samples=..., path='samples.png').",
                stacklevel=2,
            )
            return None
        return Film(samples, self.path)

    def on_epoch_begin(self, epoch: int, logs: Any = None) -> None:
        """Note the epoch. See Keras."""
        self._now().begin_epoch(epoch)

    def most(self) -> int | None:
        """Return 1 if batches are measured, or if the view may be due at each of them."""
        return 1 if self.gradients or self.every < _GROUP else None

    def before_batches(self, first: int) -> None:
        """Have this batch measured if the view is due. See `BatchCallback`."""
        self._now().before()

    def after_batches(self, first: int, last: int) -> None:
        """Update the view if it is due. See `BatchCallback`."""
        self._now().after(first, last)


def _check(samples: Any, every: Any, path: Any) -> None:
    if samples is not None and not callable(samples):
        raise ValueError(
            f"Live got samples={samples!r}. Give a function without arguments that returns "
            "images, as `lambda: gan.generator(noise)`."
        )
    is_number = isinstance(every, numbers.Real) and not isinstance(every, bool)
    if not is_number or not float(every) > 0:
        raise ValueError(f"Live got every={every!r}; give a number of seconds above 0.")
    if path is not None and samples is None:
        raise ValueError(f"Live got path={str(path)!r} without samples. Give samples= too.")
    if samples is not None and importlib.util.find_spec("matplotlib") is None:
        raise ValueError(
            "Live(samples=...) draws with matplotlib, which is not installed. Install it with "
            "`python -m pip install 'mlsystem[plot]'`, or leave samples out."
        )
    if path is not None:
        _check_file(Path(path))


def _check_file(path: Path) -> None:
    from matplotlib.backend_bases import FigureCanvasBase

    endings = FigureCanvasBase.get_supported_filetypes()
    if path.suffix and path.suffix[1:].lower() not in endings:
        raise ValueError(
            f"Live got path='{path}', which matplotlib cannot write. End it in .png, or in another "
            f"of {', '.join(endings)}."
        )
    if not path.parent.is_dir():
        raise ValueError(
            f"Live got path='{path}', and there is no folder '{path.parent}'. Make it first."
        )

"""`Log`: send a training run to an experiment tracker."""

import importlib.util
import inspect
from collections.abc import Callable
from typing import Any

from mlsystem._checks import is_count
from mlsystem.callbacks.measured_steps import MeasuredSteps
from mlsystem.callbacks.run_callback import RunCallback
from mlsystem.callbacks.tracking.run import Run
from mlsystem.callbacks.tracking.series import is_run
from mlsystem.callbacks.tracking.targets import choose
from mlsystem.engine import engine
from mlsystem.engine.distribution import first_process


class Log(RunCallback):
    """A callback that sends a training run to an experiment tracker.

    ```python
    gan.fit(images, epochs=30, callbacks=[ml.callbacks.Log("tensorboard", "runs/gan")])
    ```

    What `place` is, and which package is needed:

    - `"tensorboard"`: a folder, `runs/NAME` by default. Needs `tensorboardX`, no TensorFlow.
    - `"wandb"`: a project. Needs `wandb`.
    - `"mlflow"`: an experiment, at MLflow's tracking URI. Needs `mlflow`.
    - `"trackio"`: a project. Needs `trackio`.
    - `"comet"`: a project. Needs `comet_ml`.
    - An object with `log(values, step)`: no place, no package.

    The series of a model stand under its name: the log `generator_loss` is `generator/loss`, and
    `val_generator_loss` is `generator/val_loss`. Their axis is the number of batches. TensorBoard's
    page "Custom Scalars" has training and validation in one chart. The tracker also gets the
    configuration, the versions of packages, the picture of the system, and at the end the best
    value of each loss and metric, as `best/generator/val_loss`. An object gets the numbers only.

    `fit(resume=...)` continues the run of the tracker, if the checkpoint was written beside this
    callback. So does a second `fit` with the same callback. Other runs are new. If the folder of
    TensorBoard has another run, the new one takes the next free folder, as `runs/gan-2`.

    Training with and without this callback is the same, bit for bit. A batch costs the addition of
    a number. A tracker that fails while training lasts is one warning, and training continues. With
    several processes, the first one logs, without samples and gradients. `fit(fast_run=...)` leaves
    this callback out.

    Args:
        target: the name of a tracker, or an object with a method `log(values, step)`. `values` is
            a dict of floats by series. `step` is a number of batches.
        place: where to log. By default the name of the model.
        every: number of batches between points. A loss is then its mean over the batches since the
            point before in the epoch. The numbers are copied on the device and written at the next
            point, so that no step is waited for. None writes the logs of each epoch.
        samples: a function without arguments that returns images, as
            `lambda: gan.generator(noise)`. Shapes and numbers are as in `ml.plot.samples`. They
            are drawn at the start and after each epoch, the first 64 as a grid.
        gradients: whether to measure the norm of the gradient of each model (`gradient_norm`). It
            also measures the norm of an update divided by the norm of the weights
            (`update_ratio`). It measures the last batch before a point, or the first batch of an
            epoch. A measurement takes a forward pass, the backward passes of a step, and a copy of
            the weights.

    Raises:
        ValueError: if an argument has another value, or the callback is not given to the `fit` of
            an MLModel or MLSystem.
        ImportError: if the package of the tracker is not installed.
        RuntimeError: by `fit`, before training, if the tracker cannot open a run.
    """

    def __init__(
        self,
        target: Any,
        place: Any = None,
        every: int | None = None,
        samples: Callable[[], Any] | None = None,
        gradients: bool = False,
    ) -> None:
        super().__init__()
        _check(every, samples, gradients)
        self.target = choose(target, place)
        self.every, self.samples, self.gradients = every, samples, gradients
        # A checkpoint keeps this. It changes with each batch, so that it is always kept.
        self.kept: dict[str, Any] = {"run": None, "batches": 0, "validated": 0, "best": {}}

    def follow(self, callbacks: Any, epoch: Any) -> None:
        """Open the run in the tracker. See `BatchCallback`."""
        kept, trained = self.kept, 0
        if callbacks.resume is not None:
            saved = callbacks.states.saved(self, callbacks.resume.state["callbacks"])
            trained = callbacks.resume.position["total"]
            self.kept["batches"] = self.kept["validated"] = trained  # if nothing is saved
            kept = saved.get("kept", kept)
        target = self.target if first_process.is_here() else None
        run = Run(self.model, target, kept)
        run.before = kept["batches"] - trained
        run.data = callbacks.parts[0]
        run.measured = [c for c in callbacks.callbacks if isinstance(c, MeasuredSteps)]
        run.settings = {
            "epochs": self.params["epochs"],
            "batches": self.params["steps"],
            "batch_size": getattr(epoch.data_adapter, "batch_size", None),
        }
        run.is_inside = callbacks.resume is not None and callbacks.resume.inside
        if engine.replicas.count == 1:
            run.draw = self.samples
        run.start(kept["run"] if is_run(kept["run"]) else None)
        self._run = run  # from here on, `close` closes it

    def on_epoch_begin(self, epoch: int, logs: Any = None) -> None:
        """Describe the run before its first epoch. See Keras."""
        self._now().begin_epoch()

    def before_batches(self, first: int) -> None:
        """Have this batch measured if a point follows it. See `BatchCallback`."""
        run = self._now()
        if self.every is not None:
            run.resume_inside()
        meter = run.meter
        if meter is not None:
            ahead = self.model.steps_per_execution
            meter.is_due = self._is_due(ahead) if self.every else not meter.found

    def after_batches(self, first: int, last: int) -> None:
        """Count the batches, and add a point if it is due. See `BatchCallback`."""
        count = last + 1 - first
        is_due = self._is_due(count)
        self.kept["batches"] += count
        if is_due:
            self._now().add_point()

    def _is_due(self, count: int) -> bool:
        if self.every is None:
            return False
        batches = self.kept["batches"]
        return bool((batches + count) // self.every > batches // self.every)

    def _now(self) -> Run:
        run: Run = super()._now()
        run.kept = self.kept  # which a checkpoint may have replaced
        return run


def _check(every: Any, samples: Any, gradients: Any) -> None:
    if every is not None and not is_count(every):
        raise ValueError(
            f"Log got every={every!r}; give a number of batches from 1, or None for each epoch."
        )
    if not isinstance(gradients, bool):
        raise ValueError(f"Log got gradients={gradients!r}; give True or False.")
    if samples is not None and not _takes_nothing(samples):
        raise ValueError(
            f"Log got samples={samples!r}. Give a function without arguments that returns images, "
            "as `lambda: gan.generator(noise)`."
        )
    if samples is not None and importlib.util.find_spec("PIL") is None:
        raise ValueError(
            "Log(samples=...) writes images with Pillow, which is not installed. Install it with "
            "`python -m pip install pillow`, or leave samples out."
        )


def _takes_nothing(samples: Any) -> bool:
    """Return whether something is a function that can be called without arguments."""
    try:
        inspect.signature(samples).bind()
    except TypeError:
        return False
    except ValueError:  # a function of C has no signature
        return True
    return True

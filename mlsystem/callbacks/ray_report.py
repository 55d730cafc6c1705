"""`RayReport`: report metrics and checkpoints to Ray Train, and resume after its restart."""

import shutil
import tempfile
from pathlib import Path
from typing import Any

import numpy as np

from mlsystem.callbacks.checkpoint import Checkpoint
from mlsystem.engine.distribution import first_process


class RayReport(Checkpoint):
    """A callback that reports the logs and a checkpoint of each epoch to Ray Train.

    Use it inside the function that a `TorchTrainer` or `JaxTrainer` runs. Pass its folder to
    `fit(resume=...)`. If Ray restarts the workers, training resumes from the last reported epoch.

    ```python
    def train(config):
        import mlsystem as ml

        ml.distribute()
        gan = GAN()
        report = ml.callbacks.RayReport()
        gan.fit(images, batch_size=256, epochs=20, callbacks=[report], resume=report.folder)
    ```

    Ray waits for all workers in each report. It stores the checkpoint of process 0, a folder with
    one file that `load_weights` reads. Ray decides how many checkpoints it keeps, and which
    one is the best: set `checkpoint_config` of its `RunConfig`. Weights that are sharded over
    several processes need a folder that all processes share: pass a `Checkpoint` for them. See
    docs/guides/distribution.md.

    Attributes:
        folder: a folder of this process. It holds the newest checkpoint, and is deleted at the end.

    Raises:
        ImportError: Ray Train is not installed.
        RuntimeError: Ray Train has not started this process.
    """

    def __init__(self) -> None:
        self._train = _ray_train()
        self._place = tempfile.TemporaryDirectory(prefix="mlsystem-ray-")
        _fetch(self._train.get_checkpoint(), Path(self._place.name))
        super().__init__(self._place.name, async_write=False)
        self._epoch_logs: dict[str, float] = {}

    def on_epoch_end(self, epoch: int, logs: Any = None) -> None:
        """Write a checkpoint and report it, unless training left the epoch early. See Keras."""
        super().on_epoch_end(epoch, logs)
        if not self._is_left_off:
            numbers = {n: value for n, value in (logs or {}).items() if np.ndim(value) == 0}
            self._epoch_logs = {name: float(value) for name, value in numbers.items()}
            self._report(epoch)

    def leave_off(self) -> None:
        """Write and report a checkpoint inside an epoch that training leaves."""
        super().leave_off()
        self._report(self._epoch)

    def _report(self, epoch: int) -> None:
        holds = first_process.is_here()
        found = self._train.Checkpoint.from_directory(str(self.folder)) if holds else None
        self._train.report({"epoch": epoch + 1, **self._epoch_logs}, checkpoint=found)


def _ray_train() -> Any:
    """Return the module `ray.train`, in a process that Ray Train has started."""
    try:
        import ray.train
    except ImportError as error:
        raise ImportError(
            "RayReport needs Ray Train, which is not installed. Install it with "
            "`python -m pip install 'mlsystem[ray]'`."
        ) from error
    if not _is_worker(ray.train):
        raise RuntimeError(
            "RayReport reports to Ray Train, which has not started this process. Make the callback "
            "inside the function that a TorchTrainer or JaxTrainer runs."
        )
    return ray.train


def _is_worker(train: Any) -> bool:
    try:
        train.get_context()
    except RuntimeError:
        return False
    return True


def _fetch(reported: Any, folder: Path) -> None:
    """Copy the checkpoint that Ray restarts from. None: Ray starts for the first time."""
    if reported is None:
        return
    with reported.as_directory() as place:
        for path in Path(place).glob("step-*"):
            copy = shutil.copytree if path.is_dir() else shutil.copy
            copy(path, folder / path.name)

"""`Checkpoint`: save checkpoints that training resumes from exactly."""

import contextlib
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any

import keras

from mlsystem._checks import as_folder
from mlsystem.callbacks.checkpoint_options import check, check_writing
from mlsystem.engine.distribution import first_process
from mlsystem.saving import checkpoint_file, resume, shards
from mlsystem.saving.callback_state import CallbackStates
from mlsystem.saving.checkpoint_writer import STEPS, Writer
from mlsystem.saving.data_position import Position
from mlsystem.saving.shards import Shards

_BEST = f"best-{'[0-9]' * 10}{checkpoint_file.ENDING}"
_SIGN = {"min": 1.0, "max": -1.0}


class Checkpoint(keras.callbacks.Callback):
    """A callback that saves checkpoints, from which `fit(resume=folder)` resumes exactly.

    Use it for long runs, which then survive a crash or a stop. Training resumed from a checkpoint
    gives the same weights as an uninterrupted run. A checkpoint holds the weights, the state of all
    optimizers, EMA copies, random seeds and callbacks, and the position in the data.

    ```python
    keras.utils.set_random_seed(0)
    checkpoint = ml.callbacks.Checkpoint("runs/vae", every=500, best=("val_loss", "min"))
    vae.fit(
        images, validation_data=(held_out,), epochs=20, callbacks=[checkpoint], resume="runs/vae"
    )
    ```

    Run the same script again to resume. If the folder has no checkpoint, training starts from
    scratch. Resume with the same backend. Each checkpoint is one file, `step-BATCHES.weights.h5`,
    which `load_weights` reads too. A file gets its name only when it is complete. So a run that is
    killed at any moment leaves the last good checkpoint. State that JAX shards over devices stands
    in a folder beside the file, `step-BATCHES.shards`, by Orbax (extra `orbax`).

    Resuming is exact for these data:

    - Arrays.
    - A `keras.utils.PyDataset` with one worker. The checkpoint keeps its attributes that are random
      generators, lists or vectors of integers, and numbers and strings that change.
    - The `DataLoader` of torch, on torch.
    - A data set with `get_state` and `set_state`, or `state_dict` and `load_state_dict`.

    Other data sets (a `tf.data.Dataset`, a generator) are read from their start to the batch where
    the run stopped. This is exact if they yield the same batches each time. `Dataset.shuffle` does
    so with `reshuffle_each_iteration=False`. A `PyDataset` with several workers resumes in another
    order if it draws at random or reorders. The batches of an unfinished epoch are read again
    without training. The state of `validation_data` is not saved: random draws there start over.

    `on_train_begin` of the callbacks sees the model as passed to `fit`. Its state is restored
    afterwards. A callback is restored if its class, monitored log and model are the same. Its
    attributes are restored if they are numbers, strings, arrays, or lists and dicts of these. The
    file of a `CSVLogger` is restored without the rows after the checkpoint. If a callback such as
    `EarlyStopping` ended the run, the run stays ended until you pass other callbacks.

    Args:
        folder: folder of the files. It is created if it does not exist.
        every: "epoch", or a number of batches. The end of training is always saved.
        keep: number of the newest files to keep in the folder. None keeps all.
        best: `(name, "min" or "max")` of a log at the end of an epoch. The best epoch is also saved
            as `best.weights.h5`.
        keep_best: number of best epochs to keep. If it is above 1, each of them is also saved as
            `best-BATCHES.weights.h5`.
        async_write: True writes files in a thread while training continues. The state is copied in
            memory first. False waits for the disk. "auto" is True for files above 100 MB.
        on_error: "raise", or "warn" to continue training if a checkpoint cannot be written. Each
            write is tried twice. The folder is created again if it is gone.

    Raises:
        ValueError: if an argument has another value. When training starts, if the folder holds
            checkpoints of another run.
        RuntimeError: when training starts, if another run is writing to the folder.
        OSError: before training, if the folder is not writable. Later, if a checkpoint cannot be
            written. With `async_write` the next checkpoint or the end of training raises it.
    """

    def __init__(
        self,
        folder: Any,
        every: Any = "epoch",
        keep: int | None = 1,
        best: Any = None,
        *,
        keep_best: int = 1,
        async_write: bool | str = "auto",
        on_error: str = "raise",
    ) -> None:
        super().__init__()
        check(every, keep, best)
        check_writing(keep_best, best, async_write, on_error)
        self.folder = as_folder(folder, "Checkpoint")
        self.every, self.keep, self.best, self.keep_best = every, keep, best, keep_best
        self.async_write, self.on_error = async_write, on_error
        self.best_value: float | None = None
        self.best_files: list[tuple[float, str]] = []  # of the best epochs, with their values
        self.saved = 0  # number of batches at the last checkpoint
        self._writer: Any = None
        self._finish: Callable[[], None] = _nothing  # waits for the sharded state on the disk
        self._writes = True  # the first of several processes does
        self._written: set[Path] = set()
        self._epoch = 0
        self._is_left_off = False
        self._position: Any = None

    def follow(self, position: Position, callbacks: CallbackStates, resumed: Any) -> None:
        """Prepare to save the state of a run. `fit` calls this before training starts."""
        self._writes = first_process.is_here()
        if self._writes:
            self._writer = Writer(self.folder, self.async_write, self.on_error)
        self._position, self._callbacks, self._is_left_off = position, callbacks, False
        if resumed is None:
            position.total = max(position.total, self.saved)
        if self._writes:
            self._check_folder(resumed)
        if self.every != "epoch":
            position.before_batch = _both(position.before_batch, self._before_batch)

    def _check_folder(self, resumed: Any) -> None:
        known = set() if resumed is None else {resumed.path.resolve()}
        later = {p for p in self.folder.glob(STEPS) if p.resolve() not in known} - self._written
        if resumed is not None:
            later = {path for path in later if path.name > _name(resumed.position["total"])}
        if later:
            raise ValueError(
                f"The folder '{self.folder}' holds {max(later).name}, which this run has not "
                "written. Go on from it with fit(resume=folder), choose another folder, or remove "
                "the files that are newer than the one you resume from."
            )

    def on_train_begin(self, logs: Any = None) -> None:
        """Check that `fit` called `follow`. `fit` calls all `on_` methods."""
        if self._position is None:
            raise ValueError(
                "Checkpoint needs the `fit` of an MLModel or MLSystem, and its callbacks as a list."
            )

    def on_epoch_begin(self, epoch: int, logs: Any = None) -> None:
        """Store the number of the epoch. See Keras."""
        self._epoch = epoch

    def _before_batch(self) -> None:
        if self._is_due():
            self._write_step(ended=False)

    def _is_due(self) -> bool:
        return self._position.total // self.every > self.saved // self.every

    def most(self) -> int | None:
        """Return the number of batches up to the next checkpoint. None in an epoch without."""
        if self.every == "epoch" or self._position is None:
            return None
        return int(self.every - self._position.total % self.every)

    def on_epoch_end(self, epoch: int, logs: Any = None) -> None:
        """Write the due checkpoints, after all other callbacks have run this hook."""
        if self._is_left_off:
            return
        paths = self._best_paths(logs or {})
        last = self.model.stop_training or epoch + 1 == self.params["epochs"]
        if last or self.every == "epoch" or self._is_due():
            paths.append(self._step_path())
        self._write(paths, ended=True)

    def leave_off(self) -> None:
        """Write a checkpoint inside an epoch that training leaves. Training resumes from there."""
        self._write_step(ended=False)
        self._is_left_off = True

    def write_end(self) -> None:
        """Write the end of an epoch as the end of training, unless it is already written."""
        if self.saved != self._position.total:
            self._write_step(ended=True)

    def on_train_end(self, logs: Any = None) -> None:
        """Wait until the last file is written. See Keras."""
        self._position = None  # another `fit` has another position
        if self._writes:
            self._writer.wait()
        self._finish()

    def close(self) -> None:
        """Wait for the last file when `fit` ends, also by an error. Then unlock the folder."""
        writer, self._writer = self._writer, None
        if writer is not None:
            writer.close()
        finish, self._finish = self._finish, _nothing
        finish()

    def _best_paths(self, logs: dict[str, Any]) -> list[Path]:
        """Return the paths to write an epoch to if it is one of the best."""
        value = self._value(logs)
        if value is None or value != value:
            return []
        names, sign = [], _SIGN[self.best[1]]
        if self.best_value is None or sign * value < sign * self.best_value:
            self.best_value = value
            names.append(f"best{checkpoint_file.ENDING}")
        ranked = [
            *self.best_files,
            (value, f"best-{self._position.total:010d}{checkpoint_file.ENDING}"),
        ]
        self.best_files = sorted(ranked, key=lambda file: sign * file[0])[: self.keep_best]
        if self.keep_best > 1 and ranked[-1] in self.best_files:
            names.append(ranked[-1][1])
        return [self.folder / name for name in names]

    def _value(self, logs: dict[str, Any]) -> float | None:
        if self.best is None:
            return None
        if self.best[0] not in logs:
            warnings.warn(
                f"Checkpoint looks for the best '{self.best[0]}', which is not logged. The logs "
                f"are {', '.join(logs)}.",
                stacklevel=2,
            )
            return None
        return float(logs[self.best[0]])

    def _write_step(self, ended: bool) -> None:
        self._write([self._step_path()], ended)

    def _step_path(self) -> Path:
        self.saved = self._position.total
        path = self.folder / _name(self.saved)
        self._written.add(path)
        return path

    def _write(self, paths: list[Path], ended: bool) -> None:
        if not paths or not (self._writes or first_process.reads_together()):
            return
        if self._writes:
            self._writer.wait()  # before the state is copied in memory again
        self._finish()
        sharded = Shards(self.model)
        folder = self.folder / f"step-{self._position.total:010d}{shards.ENDING}"
        self._finish = sharded.save(folder)  # by all processes
        parts = self.model, self._position, self._callbacks, self._epoch, ended
        content = checkpoint_file.content(self.model, resume.state(*parts), sharded)
        if self._writes:
            self._writer.write(paths, content, self._finish, self._remover())

    def _remover(self) -> Callable[[], None]:
        """Return a function that removes the files not to keep, once newer files are complete."""
        best = {name for _, name in self.best_files}

        def remove() -> None:
            old = sorted(self.folder.glob(STEPS))[: -self.keep] if self.keep else []
            worse = [path for path in self.folder.glob(_BEST) if path.name not in best]
            for path in (*old, *(worse if self.keep_best > 1 else ())):
                with contextlib.suppress(OSError):
                    path.unlink()
            shards.remove_unused(self.folder, checkpoint_file.ENDING)

        return remove


def _nothing() -> None:
    """Wait for nothing."""


def _name(total: int) -> str:
    return f"step-{total:010d}{checkpoint_file.ENDING}"


def _both(first: Any, second: Any) -> Any:
    def call() -> None:
        first()
        second()

    return call

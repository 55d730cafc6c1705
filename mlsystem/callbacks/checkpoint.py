"""`Checkpoint`: save checkpoints that training resumes from exactly."""

import contextlib
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any

import keras

from mlsystem._checks import as_folder
from mlsystem.callbacks.checkpoint_options import check, check_writing
from mlsystem.saving import checkpoint_file, resume
from mlsystem.saving.callback_state import CallbackStates
from mlsystem.saving.checkpoint_writer import STEPS, Writer
from mlsystem.saving.data_position import Position

_BEST = f"best-{'[0-9]' * 10}{checkpoint_file.ENDING}"
_SIGN = {"min": 1.0, "max": -1.0}


class Checkpoint(keras.callbacks.Callback):
    """Writes checkpoints, from which `fit(resume=folder)` goes on as if it had never stopped.

    A checkpoint holds the weights, the state of all optimizers, EMA copies and random seeds, the
    epoch and the batch, where in the data and in its order the run is, and what the callbacks
    remember. Each is one file, `step-BATCHES.weights.h5`, which `load_weights` reads too. It takes
    its name once it is complete: a run that is killed at any moment leaves the last good one.

    ```python
    keras.utils.set_random_seed(0)
    checkpoint = ml.callbacks.Checkpoint("runs/vae", every=500, best=("val_loss", "min"))
    vae.fit(
        images, validation_data=(held_out,), epochs=100, callbacks=[checkpoint], resume="runs/vae"
    )
    ```

    The script can be started again and again: without a checkpoint in the folder it begins anew.

    Where training goes on is exact for arrays, for a `keras.utils.PyDataset` with one worker (its
    attributes that are random generators, lists or vectors of integers, and numbers and strings
    that change are kept), on torch for its `DataLoader`, and for any data set with `get_state` and
    `set_state`, or `state_dict` and `load_state_dict`. Other data sets (a `tf.data.Dataset`, a
    generator) are read from their beginning to the batch where the run stopped, which is exact if
    they yield the same each time: `Dataset.shuffle` does with `reshuffle_each_iteration=False`. A
    `PyDataset` whose several workers draw at random or reorder it goes on in another order. The
    batches of an unfinished epoch are read once more without training on them. What
    `validation_data` remember is not kept: those that draw at random begin anew. The backend must
    be that of before.

    In `on_train_begin`, callbacks see the model as it was given to `fit`; then it gets its state.
    Callbacks of the same class that monitor the same log, for the same model, get back those of
    their attributes that are numbers, strings, arrays, and lists and dicts of these. The file of a
    `CSVLogger` is kept too, and written again without the rows that came later. A run that
    they have ended, as `EarlyStopping` does, stays so until other callbacks are given.

    Args:
        folder: where the files go; made if need be.
        every: "epoch", or a number of batches. The end of training is written in any case.
        keep: number of the newest files to keep in the folder; None keeps all.
        best: `(name, "min" or "max")` of a log at the end of an epoch. The best epoch is kept as
            `best.weights.h5` besides.
        keep_best: with more than 1, each of the so many best epochs is kept as
            `best-BATCHES.weights.h5` too.
        async_write: True writes files in a thread while training continues. The state is copied in
            memory first. False waits for the disk. "auto" is True for files above 100 MB.
        on_error: "raise", or "warn" to continue training where a checkpoint cannot be written. The
            write is tried twice, and the folder is made again if it is gone.

    Raises:
        ValueError: an argument is none of these, or, once training begins, the folder holds
            checkpoints of another run.
        RuntimeError: once training begins, another run is writing to the folder.
        OSError: nothing can be written to the folder, before training, or a checkpoint could not
            be written. With `async_write` the next checkpoint or the end of training raises it.
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
        self.saved = 0  # the number of batches at the last one
        self._writer: Any = None
        self._written: set[Path] = set()
        self._epoch = 0
        self._is_left_off = False
        self._position: Any = None

    def follow(self, position: Position, callbacks: CallbackStates, resumed: Any) -> None:
        """Called by `fit` before training begins, with what a checkpoint is taken of."""
        self._writer = Writer(self.folder, self.async_write, self.on_error)
        self._position, self._callbacks, self._is_left_off = position, callbacks, False
        if resumed is None:
            position.total = max(position.total, self.saved)
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
                "the files that are later than where you go on."
            )

    def on_train_begin(self, logs: Any = None) -> None:
        """Called by `fit`; so are the others."""
        if self._position is None:
            raise ValueError(
                "Checkpoint needs the `fit` of an MLModel or MLSystem, and its callbacks as a list."
            )

    def on_epoch_begin(self, epoch: int, logs: Any = None) -> None:
        """See Keras."""
        self._epoch = epoch

    def _before_batch(self) -> None:
        if self._is_due():
            self._write_step(ended=False)

    def _is_due(self) -> bool:
        return self._position.total // self.every > self.saved // self.every

    def on_epoch_end(self, epoch: int, logs: Any = None) -> None:
        """Writes what is due, when all who look at the end of an epoch have done so."""
        if self._is_left_off:
            return
        paths = self._best_paths(logs or {})
        last = self.model.stop_training or epoch + 1 == self.params["epochs"]
        if last or self.every == "epoch" or self._is_due():
            paths.append(self._step_path())
        self._write(paths, ended=True)

    def leave_off(self) -> None:
        """Writes a checkpoint inside an epoch that training then leaves: it goes on from there."""
        self._write_step(ended=False)
        self._is_left_off = True

    def write_end(self) -> None:
        """Writes the end of an epoch, after which training ends, unless that is written."""
        if self.saved != self._position.total:
            self._write_step(ended=True)

    def on_train_end(self, logs: Any = None) -> None:
        """See Keras. Waits until the last file is written."""
        self._position = None  # that of another `fit` is another
        self._writer.wait()

    def close(self) -> None:
        """Called when `fit` is left, by an error too, which waits until the last file is written.

        Other runs may then write to the folder.
        """
        writer, self._writer = self._writer, None
        if writer is not None:
            writer.close()

    def _best_paths(self, logs: dict[str, Any]) -> list[Path]:
        """What an epoch is written to that is one of the best."""
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
        if not paths:
            return
        self._writer.wait()  # and only then copies the state once more
        parts = self.model, self._position, self._callbacks, self._epoch, ended
        content = checkpoint_file.content(self.model, resume.state(*parts))
        self._writer.write(paths, content, self._remover())

    def _remover(self) -> Callable[[], None]:
        """Removes the files that are not to be kept, when others are complete."""
        best = {name for _, name in self.best_files}

        def remove() -> None:
            old = sorted(self.folder.glob(STEPS))[: -self.keep] if self.keep else []
            worse = [path for path in self.folder.glob(_BEST) if path.name not in best]
            for path in (*old, *(worse if self.keep_best > 1 else ())):
                with contextlib.suppress(OSError):
                    path.unlink()

        return remove


def _name(total: int) -> str:
    return f"step-{total:010d}{checkpoint_file.ENDING}"


def _both(first: Any, second: Any) -> Any:
    def call() -> None:
        first()
        second()

    return call

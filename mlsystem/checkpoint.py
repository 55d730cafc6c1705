"""Checkpoint: files from which training goes on exactly where it was."""

import os
import warnings
from pathlib import Path
from typing import Any

import keras

from mlsystem import resume, snapshot
from mlsystem.callback_state import CallbackStates
from mlsystem.position import Position

_WORST = {"min": float("inf"), "max": -float("inf")}
_STEPS = f"step-*{snapshot.ENDING}"


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

    Raises:
        ValueError: an argument is none of these, or, once training begins, the folder holds
            checkpoints of another run.
    """

    def __init__(
        self, folder: Any, every: Any = "epoch", keep: int | None = 1, best: Any = None
    ) -> None:
        super().__init__()
        _check(every, keep, best)
        self.folder = as_folder(folder, "Checkpoint")
        self.every, self.keep, self.best = every, keep, best
        self.best_value: float | None = None
        self.saved = 0  # the number of batches at the last one
        self._written: set[Path] = set()
        self._epoch = 0
        self._is_left_off = False
        self._position: Any = None

    def follow(self, position: Position, callbacks: CallbackStates, resumed: Any) -> None:
        """Called by `fit` before training begins, with what a checkpoint is taken of."""
        self.folder.mkdir(parents=True, exist_ok=True)
        snapshot.clean(self.folder)
        self._position, self._callbacks, self._is_left_off = position, callbacks, False
        if resumed is None:
            position.total = max(position.total, self.saved)
        self._check_folder(resumed)
        if self.every != "epoch":
            position.before_batch = _both(position.before_batch, self._before_batch)

    def _check_folder(self, resumed: Any) -> None:
        known = set() if resumed is None else {resumed.path.resolve()}
        later = {p for p in self.folder.glob(_STEPS) if p.resolve() not in known} - self._written
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
        if self.best is not None and self._is_best(logs or {}):
            self._write(self.folder / f"best{snapshot.ENDING}", ended=True)
        last = self.model.stop_training or epoch + 1 == self.params["epochs"]
        if last or self.every == "epoch" or self._is_due():
            self._write_step(ended=True)

    def leave_off(self) -> None:
        """Writes a checkpoint inside an epoch that training then leaves: it goes on from there."""
        self._write_step(ended=False)
        self._is_left_off = True

    def write_end(self) -> None:
        """Writes the end of an epoch, after which training ends, unless that is written."""
        if self.saved != self._position.total:
            self._write_step(ended=True)

    def on_train_end(self, logs: Any = None) -> None:
        """See Keras."""
        self._position = None  # that of another `fit` is another

    def _is_best(self, logs: dict[str, Any]) -> bool:
        name, mode = self.best
        if name not in logs:
            warnings.warn(
                f"Checkpoint looks for the best '{name}', which is not logged. The logs are "
                f"{', '.join(logs)}.",
                stacklevel=2,
            )
            return False
        value = float(logs[name])
        best = self.best_value if self.best_value is not None else _WORST[mode]
        if not (value < best if mode == "min" else value > best):  # nor is NaN
            return False
        self.best_value = value
        return True

    def _write_step(self, ended: bool) -> None:
        self.saved = self._position.total
        path = self.folder / _name(self.saved)
        self._write(path, ended)
        self._written.add(path)
        if self.keep is not None:
            for old in sorted(self.folder.glob(_STEPS))[: -self.keep]:
                old.unlink()

    def _write(self, path: Path, ended: bool) -> None:
        parts = self.model, self._position, self._callbacks, self._epoch, ended
        snapshot.write(path, self.model, resume.state(*parts))


def as_folder(given: Any, what: str) -> Path:
    """The path of a folder that a callback is to write to."""
    if not isinstance(given, (str, os.PathLike)):
        raise TypeError(f"{what} got the folder {given!r}; give its path.")
    folder = Path(given).expanduser()
    if folder.exists() and not folder.is_dir():
        raise ValueError(f"{what} got '{given}', which is a file; give a folder.")
    return folder


def _name(total: int) -> str:
    return f"step-{total:010d}{snapshot.ENDING}"


def _both(first: Any, second: Any) -> Any:
    def call() -> None:
        first()
        second()

    return call


def _check(every: Any, keep: Any, best: Any) -> None:
    if every != "epoch" and not is_count(every):
        raise ValueError(f"Checkpoint got every={every!r}; give 'epoch' or a number of batches.")
    if keep is not None and not is_count(keep):
        raise ValueError(f"Checkpoint got keep={keep!r}; give a number of files from 1, or None.")
    pair = best if isinstance(best, (tuple, list)) and len(best) == 2 else (None, None)
    if best is not None and (not isinstance(pair[0], str) or pair[1] not in ("min", "max")):
        raise ValueError(f"Checkpoint got best={best!r}; give (name of a log, 'min' or 'max').")


def is_count(value: Any) -> bool:
    """Whether a value is a whole number from 1."""
    return isinstance(value, int) and not isinstance(value, bool) and value > 0

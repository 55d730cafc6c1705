"""`fit(resume=)`: collect and restore everything in a checkpoint except the weights."""

import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
from keras import ops

from mlsystem import _learner
from mlsystem.engine import engine, random_state
from mlsystem.engine.distribution import first_process
from mlsystem.saving import checkpoint_file, resume_checks, trainable_state, weights_file
from mlsystem.saving.callback_state import CallbackStates
from mlsystem.saving.data_position import Position

_ADVICE = "Go on with the models and optimizers that it was written of, or choose another folder"


def find(place: Any) -> "Resume | None":
    """Return the newest checkpoint in a folder, or the named file. None if there is none yet."""
    if place is None:
        return None
    if not isinstance(place, (str, os.PathLike)) or not os.fspath(place):
        raise TypeError(
            f"fit got resume={place!r}; give the folder of a Checkpoint, or a file in it."
        )
    path = Path(place).expanduser()
    if path.name.endswith(checkpoint_file.ENDING) and not path.is_dir():
        return Resume(path)
    if path.is_file() or path.suffix in (".keras", ".h5"):
        raise ValueError(f"resume={str(place)!r} is neither a folder nor a checkpoint in one.")
    written = sorted(path.glob(f"step-*{checkpoint_file.ENDING}"))
    newest = written[-1].name if written else "none"  # processes may have folders of their own
    first_process.check_same(newest, f"The newest checkpoint in '{path}'")
    return Resume(written[-1]) if written else None


class Resume:
    """The restore of one checkpoint into one call of `fit`, step by step.

    Args:
        path: the checkpoint.
    """

    def __init__(self, path: Path) -> None:
        self.path, self.state = path, checkpoint_file.read(path)
        resume_checks.check(path, self.state)
        self.epoch: int = self.state["epoch"]
        self.position: dict[str, Any] = self.state["position"]
        self.inside = self.position.get("batch", 0) > 0  # whether inside an epoch

    def first_epoch(self, callbacks: list[str], epochs: int) -> int:
        """Return the epoch to resume with. No epoch is left if the same callbacks ended the run."""
        return max(self.epoch, epochs) if self._was_ended_by(callbacks) else self.epoch

    def _was_ended_by(self, callbacks: list[str]) -> bool:
        return self.state["stopped"] and self.state["given"] == callbacks

    def place(self, callbacks: list[str], epochs: int) -> str:
        """Return a message that tells where training resumes, or why it does not."""
        if self.epoch >= epochs:
            return f"The run is complete: {self.path} was written after epoch {self.epoch}."
        if self._was_ended_by(callbacks):
            return (
                f"The run was ended by its callbacks after epoch {self.epoch}, says {self.path}: "
                f"nothing is trained. To train further, leave out {', '.join(callbacks)}."
            )
        batch = f", batch {self.position['batch'] + 1}" if self.inside else ""
        return f"Training resumes from {self.path}, epoch {self.epoch + 1}{batch}."

    def start(self, model: Any, position: Position, callbacks: CallbackStates) -> None:
        """Check that the checkpoint fits the model, which is ready. Raise an error if not."""
        self.model, self.callbacks = model, callbacks
        self.data = position
        self._check(position.epoch)
        self._freeze()  # tells which weights the optimizers are for
        self.entries = weights_file.fitting(model, self.path, False, _ADVICE)
        self._check_metrics()
        self.transform = model._mlsystem.call.transform
        if self.transform is not None and self.state["transform"]:
            self.transform.check(self.state["transform"])
        position.go_to(self.position)
        position.when_back = self._restore

    def _freeze(self) -> None:
        if self.state["frozen"] is not None:
            trainable_state.restore(self.model, self.state["frozen"])

    def _check(self, epoch: Any) -> None:
        if self.state["backend"] != engine.name:
            raise ValueError(
                f"'{self.path}' was written on {self.state['backend']}, and Keras runs on "
                f"{engine.name}, which draws other numbers. Set KERAS_BACKEND to "
                f"'{self.state['backend']}', or load the weights alone by `load_weights`."
            )
        now, then = epoch.num_batches, self.position["batches"]
        if "made" in self.position and None not in (now, then) and now != then:
            raise ValueError(
                f"'{self.path}' was written in an epoch of {then} batches, and this fit has "
                f"{now} an epoch. Give the same data, batch size and steps_per_epoch."
            )
        if self.position.get("batch", 0) % epoch.steps_per_execution:
            raise ValueError(
                f"'{self.path}' was written after batch {self.position['batch']} of an epoch, "
                f"within a group of steps_per_execution={epoch.steps_per_execution} batches. "
                "Compile with the same steps_per_execution as before."
            )

    def _measured(self) -> Iterator[tuple[str, list[Any]]]:
        """Yield the metrics in the file whose variables already exist."""
        for name, variables in _metrics(self.model).items():
            if variables and name in self.state["metrics"]:
                yield name, variables

    def _check_metrics(self) -> None:
        for name, variables in self._measured():
            now = [tuple(variable.shape) for variable in variables]
            if now != (then := [np.shape(value) for value in self.state["metrics"][name]]):
                raise ValueError(
                    f"'{self.path}' does not fit: the metric '{name}' has variables of the shapes "
                    f"{then} in it, and {now} in the model. Use the same metrics as before."
                )

    def begin(self) -> None:
        """Restore the state, after `on_train_begin` of the callbacks, which do not see it.

        Inside an epoch, the state is restored again before the next batch.
        """
        self._remember()
        self.callbacks.write_files(self.state["callbacks"])
        if not self.inside:
            self.data.begin_epoch(self.position)
            self.entries = {}

    def _remember(self) -> None:
        self._freeze()
        weights_file.load(self.model, self.entries)
        self.callbacks.write(self.state["callbacks"])
        random_state.set_seed(self.state["seed"])
        if self.transform is not None:
            self.transform.set_state(self.state["transform"])

    def _restore(self) -> None:
        """Restore the state inside an epoch, because the start of the epoch has changed it."""
        self._remember()
        self.model._mlsystem.compiled.shown |= dict.fromkeys(self.state["shown"], 0.0)
        for name, variables in self._measured():
            for variable, value in zip(variables, self.state["metrics"][name], strict=True):
                variable.assign(value)
        self.entries = {}  # free memory: they are as large as the model


def state(
    model: Any, position: Position, callbacks: CallbackStates, epoch: int, ended: bool
) -> dict[str, Any]:
    """Return the state that a checkpoint keeps beside the weights.

    It is the state inside an epoch, or at the end of an epoch before the next one.
    """
    transform = model._mlsystem.call.transform
    return {
        "backend": engine.name,
        "epoch": epoch + ended,
        "position": position.read(ended),
        "data": position.data_digest,
        "callbacks": callbacks.read(),
        "given": callbacks.given,
        "stopped": bool(model.stop_training),
        "seed": random_state.seed(),
        "frozen": trainable_state.state(model) if _learner.is_system(model) else None,
        "transform": transform and transform.get_state(),
        "metrics": {} if ended else {n: _arrays(found) for n, found in _metrics(model).items()},
        "shown": [] if ended else list(model._mlsystem.compiled.shown),
    }


def _metrics(model: Any) -> dict[str, list[Any]]:
    """Return the variables of metrics by name. Metrics of `evaluate` may have no variables yet."""
    found: dict[str, list[Any]] = {}
    for metric in model.metrics:
        found.setdefault(metric.name, []).extend(metric.variables)
    return found


def _arrays(variables: list[Any]) -> list[Any]:
    return [np.array(ops.convert_to_numpy(variable)) for variable in variables]

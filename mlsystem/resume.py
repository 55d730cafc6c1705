"""Going on from a checkpoint, from the very batch that it was written at."""

import os
from pathlib import Path
from typing import Any

import numpy as np
from keras import ops

from mlsystem import frozen, randomness, saving, snapshot
from mlsystem.callback_state import CallbackStates
from mlsystem.position import Position

_ADVICE = "Go on with the models and optimizers that it was written of, or choose another folder"


def find(place: Any) -> "Resume | None":
    """The newest checkpoint in a folder, or the one that is named; None where there is none yet."""
    if place is None:
        return None
    if not isinstance(place, (str, os.PathLike)):
        raise TypeError(
            f"fit got resume={place!r}; give the folder of a Checkpoint, or a file in it."
        )
    path = Path(place).expanduser()
    if path.name.endswith(snapshot.ENDING) and not path.is_dir():
        return Resume(path)
    if path.is_file() or path.suffix in (".keras", ".h5"):
        raise ValueError(f"resume={str(place)!r} is neither a folder nor a checkpoint in one.")
    written = sorted(path.glob(f"step-*{snapshot.ENDING}"))
    return Resume(written[-1]) if written else None


class Resume:
    """What a checkpoint gives back to one call of `fit`, step by step.

    Args:
        path: the checkpoint.
    """

    def __init__(self, path: Path) -> None:
        self.path, self.state = path, snapshot.read(path)
        self.epoch: int = self.state["epoch"]
        self.position: dict[str, Any] = self.state["position"]
        self.inside = self.position.get("batch", 0) > 0  # an epoch

    def first_epoch(self, callbacks: list[str], epochs: int) -> int:
        """The epoch to go on with; none where the same callbacks have ended the run already."""
        is_over = self.state["stopped"] and self.state["given"] == callbacks
        return max(self.epoch, epochs) if is_over else self.epoch

    def place(self) -> str:
        """Where training goes on, in words."""
        batch = f", batch {self.position['batch'] + 1}" if self.inside else ""
        return f"{self.path}, epoch {self.epoch + 1}{batch}"

    def start(self, model: Any, position: Position, callbacks: CallbackStates) -> None:
        """Gives the model its state; called once it is ready."""
        self.model, self.callbacks = model, callbacks
        self.data = position
        self._check(position.epoch)
        if self.state["frozen"] is not None:
            frozen.restore(model, self.state["frozen"])
        saving.load_weights(model, self.path, False, _ADVICE)
        position.go_to(self.position)
        position.when_back = self._restore

    def _check(self, epoch: Any) -> None:
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
                "Compile with the steps_per_execution of then."
            )

    def begin(self) -> None:
        """Gives callbacks and generators their state; called once callbacks know of the training.

        Where it goes on inside an epoch, more follows at its next batch.
        """
        self._remember()
        if not self.inside:
            self.data.begin_epoch(self.position)

    def _remember(self) -> None:
        self.callbacks.write(self.state["callbacks"])
        randomness.set_seed(self.state["seed"])
        if (transform := self.model._run.transform) is not None:
            for variable, value in zip(transform.variables, self.state["transform"], strict=False):
                variable.assign(value)

    def _restore(self) -> None:
        """What the beginning of an epoch has changed is put back to its middle."""
        saving.load_weights(self.model, self.path, False, _ADVICE)
        self._remember()
        self.model._run.shown |= dict.fromkeys(self.state["shown"], 0.0)
        for name, values in self.state["metrics"].items():
            for variable, value in zip(_metrics(self.model).get(name, ()), values, strict=False):
                variable.assign(value)


def state(
    model: Any, position: Position, callbacks: CallbackStates, epoch: int, ended: bool
) -> dict[str, Any]:
    """What a checkpoint keeps beside the weights: in an epoch, or at its end before the next."""
    return {
        "epoch": epoch + ended,
        "position": position.read(ended),
        "callbacks": callbacks.read(),
        "given": callbacks.given,
        "stopped": bool(model.stop_training),
        "seed": randomness.seed(),
        "frozen": frozen.state(model) if hasattr(model, "compute_losses") else None,
        "transform": _arrays(getattr(model._run.transform, "variables", [])),
        "metrics": {} if ended else {n: _arrays(found) for n, found in _metrics(model).items()},
        "shown": [] if ended else list(model._run.shown),
    }


def _metrics(model: Any) -> dict[str, list[Any]]:
    """The variables of metrics by name. Those of `evaluate` alone may not have been made yet."""
    found: dict[str, list[Any]] = {}
    for metric in model.metrics:
        found.setdefault(metric.name, []).extend(metric.variables)
    return found


def _arrays(variables: list[Any]) -> list[Any]:
    return [np.array(ops.convert_to_numpy(variable)) for variable in variables]

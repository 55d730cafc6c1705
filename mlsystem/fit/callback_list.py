"""The callbacks of one `fit`: their order, resume and checkpoints.

The list of Keras waits for the numbers in the logs of each batch, in a thread, even if no callback
reads them. On small networks this wait takes longer than the step.
"""

import contextlib
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import keras

from mlsystem import _keras
from mlsystem.callbacks import for_model, monitor_mode
from mlsystem.callbacks.batch_callback import BatchCallback, has
from mlsystem.callbacks.checkpoint import Checkpoint
from mlsystem.callbacks.gradient_norms import GradientNorms
from mlsystem.callbacks.live import Live
from mlsystem.engine import engine
from mlsystem.engine.distribution import first_process
from mlsystem.fit.compact_bar import CompactBar
from mlsystem.saving import callback_state, data_digest
from mlsystem.saving.callback_state import CallbackStates
from mlsystem.saving.data_position import Position
from mlsystem.saving.resume import Resume
from mlsystem.step import nonfinite

_BARS = (keras.callbacks.ProgbarLogger, Live)  # what shows the progress: one is enough


class CallbackList(keras.callbacks.CallbackList):
    """The callbacks of one call of `fit` or `evaluate`.

    Args:
        given: the arguments of the call.
        resume: the checkpoint to resume from.
        quiet: callbacks of our own, which are called last.
    """

    def __init__(
        self,
        given: dict[str, Any],
        resume: Resume | None = None,
        quiet: Iterable[BatchCallback] = (),
    ) -> None:
        self.trains, shows = "epochs" in given, given["verbose"] != 0
        super().__init__(given["callbacks"], add_history=self.trains)
        if shows and not any(isinstance(c, _BARS) for c in self.callbacks):
            self.callbacks.append(CompactBar(_count(given.get("validation_data"))))
        self.callbacks.sort(key=_turn)
        self.waiting = {"verbose": given["verbose"], "epochs": given.get("epochs", 1)}
        self.parts = tuple(given.get(name) for name in ("x", "y", "sample_weight"))
        self.resume = resume
        self.names = callback_state.names(self.callbacks)
        self.callbacks += quiet
        self.quiet: list[BatchCallback] = []
        self.prefix = ""  # of the logs of an evaluation
        self.first = 0
        self.epoch: Any = None  # Keras' iterator
        self.may_stop = False  # whether the processes must agree after each batch
        self.states: CallbackStates | None = None
        if resume is not None:
            given["initial_epoch"] = resume.first_epoch(self.names, given["epochs"])
        if not engine.runs_ahead():
            _keras.call_in_turn(self)

    def start(self, model: Any, epoch: Any) -> None:
        """Give the callbacks their model, once it is built, and the length of an epoch."""
        self.epoch = epoch
        self.callbacks: list[Any] = for_model.spread(self.callbacks, model)
        self.set_model(model)
        for callback in self.callbacks:
            monitor_mode.choose_mode(callback, model)
        nonfinite.check_callbacks(model, self.callbacks)
        self.set_params(self.waiting | {"steps": epoch.num_batches})
        if self.is_followed():
            self._follow(model, epoch)
        self.quiet = [
            callback for callback in self.callbacks if isinstance(callback, BatchCallback)
        ]
        for callback in self.quiet:
            callback.follow(self, epoch)
        others = [callback for callback in self.callbacks if not first_process.writes(callback)]
        hooks = ("on_train_batch_end", "on_batch_end")
        self.may_stop = first_process.on_any(any(has(c, h) for c in others for h in hooks))

    def close(self) -> None:
        """Close the callbacks when the call ends, also after an error."""
        with contextlib.ExitStack() as stack:
            for close in [c.close for c in self._checkpoints()] + [c.close for c in self.quiet]:
                stack.callback(close)

    def _checkpoints(self) -> list[Checkpoint]:
        return [callback for callback in self.callbacks if isinstance(callback, Checkpoint)]

    def is_followed(self) -> bool:
        """Return whether the call must know its position in the data."""
        return self.trains and (self.resume is not None or bool(self._checkpoints()))

    def _follow(self, model: Any, epoch: Any) -> None:
        self.position, self.states = (
            Position(epoch, self.parts[0]),
            CallbackStates(self.callbacks, self.names),
        )
        if self.resume is not None:
            self._say(self.resume.place(self.names, self.waiting["epochs"]))
            self.resume.start(model, self.position, self.states)
        self.position.data_digest = now = data_digest.of(self.parts, epoch)
        if self.resume is not None:
            then, again = self.resume.state.get("data"), data_digest.of(self.parts, epoch)
            data_digest.compare(self.resume.path, then, now, again)
        for checkpoint in self._checkpoints():
            checkpoint.follow(self.position, self.states, self.resume)

    def _say(self, text: str) -> None:
        if self.waiting["verbose"] != 0:
            print(text)

    def on_train_begin(self, logs: Any = None) -> None:
        """Call the callbacks and restore a checkpoint. Keras' trainer calls all `on_` methods."""
        super().on_train_begin(logs)
        if self.states is not None:
            self.states.begin()
        if self.resume is not None:
            self.resume.begin()

    def on_train_batch_begin(self, batch: int, logs: Any = None) -> None:
        """Call the callbacks that use this hook. See Keras."""
        if self._hears("on_train_batch_begin", "on_batch_begin"):
            super().on_train_batch_begin(batch, logs)
            if self.states is not None:
                self.position.begin_batch()
        self.first = batch
        for callback in self.quiet:
            callback.before_batches(batch)

    def on_train_batch_end(self, batch: int, logs: Any = None) -> None:
        """Call the callbacks that use this hook. See Keras."""
        if self.states is not None:
            self.position.end_batch()
        if self._hears("on_train_batch_end", "on_batch_end"):
            super().on_train_batch_end(batch, logs)
        if self.may_stop:
            first_process.agree_to_stop(self.model)
        loop = self.epoch.loop
        last = batch if loop is None else batch - loop.latest.missing  # if the data ended before
        for callback in self.quiet:
            callback.after_batches(self.first, last)

    def on_epoch_end(self, epoch: int, logs: Any = None) -> None:
        """Call the callbacks, and stop on all processes if one stops. See Keras."""
        super().on_epoch_end(epoch, logs)
        first_process.agree_to_stop(self.model)

    def on_test_batch_begin(self, batch: int, logs: Any = None) -> None:
        """Call the callbacks that use this hook. See Keras."""
        if self._hears("on_test_batch_begin"):
            super().on_test_batch_begin(batch, logs)

    def on_test_batch_end(self, batch: int, logs: Any = None) -> None:
        """Call the callbacks that use this hook, with prefixed logs. See Keras."""
        if self._hears("on_test_batch_end"):
            super().on_test_batch_end(batch, self._named(logs))

    def on_test_end(self, logs: Any = None) -> None:
        """Call the callbacks with prefixed logs. See Keras."""
        super().on_test_end(self._named(logs))

    def _named(self, logs: Any) -> Any:
        named = self.prefix and isinstance(logs, dict)
        return {self.prefix + name: value for name, value in logs.items()} if named else logs

    def _hears(self, *hooks: str) -> bool:
        return any(has(callback, hook) for callback in self.callbacks for hook in hooks)


def _count(validation_data: Any) -> int:
    """Return the number of validation sets in the arguments of `fit`."""
    return 0 if validation_data is None else len(getattr(validation_data, "sets", [0]))


def _turn(callback: Any) -> int:
    """Return a sort key: callbacks that add logs come first, and a Checkpoint comes last."""
    return isinstance(callback, Checkpoint) - isinstance(callback, GradientNorms)


def check(callbacks: Any) -> None:
    """Raise an error for an object that is not a callback, or two Checkpoints with one folder."""
    found = keras.tree.flatten(callbacks or [])
    for callback in found:
        if not isinstance(callback, keras.callbacks.Callback):
            raise ValueError(f"callbacks hold {callback!r}, which is no instance of a Callback.")
    folders: set[Path] = set()
    for checkpoint in (callback for callback in found if isinstance(callback, Checkpoint)):
        if (folder := checkpoint.folder.resolve()) in folders:
            raise ValueError(f"Two Checkpoints write to '{folder}'. Give each a folder of its own.")
        folders.add(folder)

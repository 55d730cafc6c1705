"""Keras' list of callbacks, without its work at each batch where no callback does any.

Keras' own waits for the numbers in the logs of each batch, in a thread, whether or not anybody
reads them. On small networks that takes longer than the step.
"""

from collections.abc import Mapping
from typing import Any

import keras

from mlsystem import _keras, engine


class CallbackList(keras.callbacks.CallbackList):
    """The callbacks of one call of `fit` or `evaluate`.

    Args:
        given: the arguments of the call.
    """

    def __init__(self, given: Mapping[str, Any]) -> None:
        shows = given["verbose"] != 0
        super().__init__(given["callbacks"], add_history="epochs" in given, add_progbar=shows)
        self.waiting = {"verbose": given["verbose"], "epochs": given.get("epochs", 1)}
        if not engine.chosen.runs_ahead():
            _keras.call_in_turn(self)

    def start(self, model: Any, steps: int | None) -> None:
        """Tells the callbacks of their model, once it is built, and of the length of an epoch."""
        self.set_model(model)
        self.set_params(self.waiting | {"steps": steps})

    def on_train_batch_begin(self, batch: int, logs: Any = None) -> None:
        """Called by Keras' trainer; so are the others."""
        if self._hears("on_train_batch_begin", "on_batch_begin"):
            super().on_train_batch_begin(batch, logs)

    def on_train_batch_end(self, batch: int, logs: Any = None) -> None:
        """See Keras."""
        if self._hears("on_train_batch_end", "on_batch_end"):
            super().on_train_batch_end(batch, logs)

    def on_test_batch_begin(self, batch: int, logs: Any = None) -> None:
        """See Keras."""
        if self._hears("on_test_batch_begin"):
            super().on_test_batch_begin(batch, logs)

    def on_test_batch_end(self, batch: int, logs: Any = None) -> None:
        """See Keras."""
        if self._hears("on_test_batch_end"):
            super().on_test_batch_end(batch, logs)

    def _hears(self, *hooks: str) -> bool:
        return any(_has(callback, hook) for callback in self.callbacks for hook in hooks)


def _has(callback: Any, hook: str) -> bool:
    """Whether a callback does anything at a hook: by a method or a function of its own."""
    own = getattr(getattr(callback, hook), "__func__", None)
    return own is not getattr(keras.callbacks.Callback, hook)

"""For: a Keras callback for one model of a system."""

import copy
import functools
from collections.abc import Iterable
from typing import Any

import keras

from mlsystem import _keras, _learner
from mlsystem.callbacks import batch_callback, monitor_mode, validation_names
from mlsystem.callbacks.checkpoint import Checkpoint
from mlsystem.callbacks.model_view import View, models
from mlsystem.callbacks.profile import Profile
from mlsystem.routing import model_names

_SETS_RATE = (keras.callbacks.LearningRateScheduler, keras.callbacks.ReduceLROnPlateau)


class For(keras.callbacks.Callback):
    """A callback that applies a Keras callback to one model of a system.

    Use it to schedule the learning rate of one model, to monitor its logs, or to save it alone.

    ```python
    gan.fit(
        images,
        validation_data=(held_out,),
        callbacks=[
            ml.callbacks.For("generator", keras.callbacks.ReduceLROnPlateau("val_loss")),
            ml.callbacks.For("discriminator", keras.callbacks.LearningRateScheduler(decay)),
            ml.callbacks.For("generator", keras.callbacks.ModelCheckpoint("generator.keras")),
        ],
    )
    ```

    Inside the callback, `self.model` is that one model, with its weights and its `save`.
    `self.model.optimizer` is the optimizer that the system uses for this model. The callback sees
    the logs of its model without the name of the model:

    | the callback sees | the system logs |
    |---|---|
    | `loss` | `generator_loss` |
    | `val_loss` | `val_generator_loss` |
    | `accuracy` | `generator_accuracy` |
    | `learning_rate` | `generator_learning_rate` |
    | `val_clean_loss`, of the validation set `clean` | `val_clean_generator_loss` |

    Other logs keep their names, as `val_discriminator_loss`, unless a log of the model has the same
    name. A log that the callback writes gets the name of the model.

    `model.stop_training = True`, as set by `EarlyStopping`, stops the training of the whole system.

    Args:
        name: name of the model in the system, as `generator`, `critics/0` or `vae/encoder`.
        callback: any callback except `BackupAndRestore`, `Checkpoint` and `Profile`, which are for
            a whole `fit`. Each model needs its own callback.

    Raises:
        ValueError: by the constructor, if `callback` is not such a callback. By `fit`, before
            training starts, if no model or several models have the name, or if two models share
            the callback. Also if the callback sets the learning rate of a model that is not trained
            or that has a learning rate schedule.
    """

    def __init__(self, name: str, callback: Any) -> None:
        super().__init__()
        _check(name, callback)
        self.name, self.callback = name, callback
        for hook in batch_callback.NAMES:
            if batch_callback.has(callback, hook):  # `fit` skips hooks that the callback lacks
                setattr(self, hook, functools.partial(self._tell, hook))

    def set_model(self, model: Any) -> None:
        """Give the callback the view of its model. Keras calls this with the system."""
        view = View(model, self.name)
        super().set_model(model)
        if model._mlsystem.is_ready:
            _check_optimizer(view, self.callback)
        self.callback.set_model(view)
        monitor_mode.choose_mode(self.callback, model, self.name)

    def set_params(self, params: Any) -> None:
        """Set the parameters. Keras calls this after `set_model` of all callbacks."""
        super().set_params(params)
        seen = self.callback.model
        if isinstance(seen, View) and seen.path != self.name:
            raise ValueError(
                f"One {type(self.callback).__name__} is given to '{self.name}' and to "
                f"'{seen.path}'. Make one for each."
            )
        self.callback.set_params(params)

    def _tell(self, hook: str, *given: Any, logs: Any = None) -> None:
        """Call the callback's own hook, with the logs as the model sees them."""
        counted = "epoch" in hook or "batch" in hook  # these hooks take an index before the logs
        *index, logs = given if len(given) > counted else (*given, logs)
        logs = {} if logs is None else logs
        sets = validation_names.names(self.model)
        names = seen_names(logs, self.name, models(self.model), sets)
        seen = {name: logs[full] for name, full in names.items()}
        getattr(self.callback, hook)(*index, seen)
        for name, value in seen.items():
            logs[names.get(name) or full_name(name, self.name, sets)] = value


def spread(callbacks: Iterable[Any], system: Any) -> list[Any]:
    """Return the callbacks, with one `SwapEMAWeights` for each model whose optimizer averages.

    Keras' `SwapEMAWeights` expects one optimizer with all weights of the model in their order.
    """
    found: list[Any] = []
    for callback in callbacks:
        swaps = isinstance(callback, keras.callbacks.SwapEMAWeights)
        models = _averaged(system) if swaps and _learner.is_system(system) else []
        found += [For(name, copy.copy(callback)) for name in models] or [callback]
    return found


def _averaged(system: Any) -> list[str]:
    inner = {n: getattr(o, "inner_optimizer", o) for n, o in system.optimizers.items()}
    return [name for name, optimizer in inner.items() if optimizer.use_ema]


def seen_names(
    logs: Iterable[str], model: str, models: Iterable[str], sets: Iterable[str] = ()
) -> dict[str, str]:
    """Return the log names that one model sees, with the log names of the system.

    `sets` are the names of validation sets. They come before the name of the model in a log.

    >>> seen_names(["loss", "val_a_loss", "a_b_loss"], "a", ["a", "a_b"])
    {'loss': 'loss', 'a_b_loss': 'a_b_loss', 'val_loss': 'val_a_loss'}
    """
    mine = [log for log in logs if owner(log, models, sets) == model]
    own = {full_name(log, model, sets, undo=True): log for log in mine}
    others = {log: log for log in logs if log not in own.values()}
    return others | own


def full_name(log: str, model: str, sets: Iterable[str] = (), undo: bool = False) -> str:
    """Return the system's name for a log of one model. With `undo`, return the model's name.

    >>> full_name("val_loss", "critics/0")
    'val_critics/0_loss'
    >>> full_name("val_clean_loss", "generator", ["clean"])
    'val_clean_generator_loss'
    """
    front = validation_names.front(log, sets)
    name = log.removeprefix(front)
    return front + (name.removeprefix(f"{model}_") if undo else f"{model}_{name}")


def owner(log: str, models: Iterable[str], sets: Iterable[str] = ()) -> str:
    """Return the model named at the start of a log. Of `a` and `a_b`, return the longer."""
    return named_first(log.removeprefix(validation_names.front(log, sets)), models)


def named_first(name: str, models: Iterable[str]) -> str:
    """Return the model named at the start of a log of training."""
    return max((m for m in models if name.startswith(f"{m}_")), key=len, default="")


def _check(name: Any, callback: Any) -> None:
    if not isinstance(name, str):
        raise ValueError(f"For got {name!r} for the name of a model; it takes a string.")
    if not isinstance(callback, keras.callbacks.Callback) or isinstance(callback, For):
        raise ValueError(
            f"For('{name}', ...) takes one Keras callback, and got {callback!r}. Give each "
            "callback its own For. Make an instance of a class."
        )
    if isinstance(callback, (keras.callbacks.BackupAndRestore, Checkpoint, Profile)):
        what = type(callback).__name__
        raise ValueError(
            f"{what} is for a whole `fit`, and '{name}' is one of its models. Give it without For."
        )


def _check_optimizer(view: View, callback: Any) -> None:
    what = type(callback).__name__
    needs = isinstance(callback, (*_SETS_RATE, keras.callbacks.SwapEMAWeights))
    if needs and view.optimizer is None:
        raise ValueError(
            f"'{view.path}' is not trained, and {what} needs its optimizer. "
            f"{model_names.listing(view.system.optimizers)}"
        )
    if isinstance(callback, _SETS_RATE) and (schedule := _keras.schedule(view.optimizer)):
        raise ValueError(
            f"The learning rate of '{view.path}' follows {type(schedule).__name__}, and {what} "
            "would set it. Give its optimizer a number, or leave the callback out."
        )

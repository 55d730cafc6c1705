"""For: a Keras callback for one model of a system."""

import copy
import functools
from collections.abc import Iterable
from typing import Any

import keras

from mlsystem import _keras, _learner
from mlsystem.callbacks import batch_callback, monitor_mode
from mlsystem.callbacks.checkpoint import Checkpoint
from mlsystem.callbacks.model_view import View, models
from mlsystem.callbacks.profile import Profile
from mlsystem.metrics import log_names
from mlsystem.routing import model_names

_SETS_RATE = (keras.callbacks.LearningRateScheduler, keras.callbacks.ReduceLROnPlateau)


class For(keras.callbacks.Callback):
    """Applies a Keras callback to one model of a system.

    ```python
    gan.fit(
        images,
        validation_data=more_images,
        callbacks=[
            ml.callbacks.For("generator", keras.callbacks.ReduceLROnPlateau("val_loss")),
            ml.callbacks.For("discriminator", keras.callbacks.LearningRateScheduler(decay)),
            ml.callbacks.For("generator", keras.callbacks.ModelCheckpoint("generator.keras")),
        ],
    )
    ```

    To the callback, `model` is that model: its weights, its `save`, and, as `model.optimizer`, the
    optimizer that the system has for it. In the logs, what belongs to the model goes without
    its name: `loss`, `val_loss` and `accuracy` are `generator_loss`, `val_generator_loss` and
    `generator_accuracy` of the system, and `learning_rate` is `generator_learning_rate`. Other
    logs keep their names, unless one of the model's is called so: `val_discriminator_loss`. Of
    several validation sets, `val_clean_generator_loss` is `val_clean_loss`. What the callback
    writes into the logs gets the name of the model.

    `model.stop_training = True`, as `EarlyStopping` sets it, ends the training of the whole
    system: a `fit` has one end.

    Args:
        name: name of the model in the system: `generator`, `critics/0`, `vae/encoder`.
        callback: any callback but `BackupAndRestore`, `Checkpoint` and `Profile`, which are for a
            whole `fit`; each model needs one of its own.

    Raises:
        ValueError: by the constructor, if `callback` is no such callback. By `fit`, before
            training starts, if no model has the name or several do, if two models share the
            callback, or if it sets the learning rate of a model that is not trained or whose rate
            follows a schedule.
    """

    def __init__(self, name: str, callback: Any) -> None:
        super().__init__()
        _check(name, callback)
        self.name, self.callback = name, callback
        for hook in batch_callback.NAMES:
            if batch_callback.has(callback, hook):  # what it does not hear need not be told
                setattr(self, hook, functools.partial(self._tell, hook))

    def set_model(self, model: Any) -> None:
        """Called by Keras, with the system."""
        view = View(model, self.name)
        super().set_model(model)
        if model._mlsystem.setup is not None:
            _check_optimizer(view, self.callback)
        self.callback.set_model(view)
        monitor_mode.choose_mode(self.callback, model, self.name)

    def set_params(self, params: Any) -> None:
        """Called by Keras, when all callbacks have been told of their model."""
        super().set_params(params)
        seen = self.callback.model
        if isinstance(seen, View) and seen.path != self.name:
            raise ValueError(
                f"One {type(self.callback).__name__} is given to '{self.name}' and to "
                f"'{seen.path}'. Make one for each."
            )
        self.callback.set_params(params)

    def _tell(self, hook: str, *given: Any, logs: Any = None) -> None:
        """Calls the callback's own hook, with the logs as the model sees them."""
        counted = "epoch" in hook or "batch" in hook  # by an index, before the logs
        *index, logs = given if len(given) > counted else (*given, logs)
        logs = {} if logs is None else logs
        sets = log_names.names(self.model)
        names = seen_names(logs, self.name, models(self.model), sets)
        seen = {name: logs[full] for name, full in names.items()}
        getattr(self.callback, hook)(*index, seen)
        for name, value in seen.items():
            logs[names.get(name) or full_name(name, self.name, sets)] = value


def spread(callbacks: Iterable[Any], system: Any) -> list[Any]:
    """Callbacks for a system, `SwapEMAWeights` as one for each model whose optimizer averages.

    Keras' own takes one optimizer to have all the weights of the model in their order.
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
    """The names of logs as one model sees them, and what they are in the system.

    `sets` are the names of validation sets, which stand before that of the model.

    >>> seen_names(["loss", "val_a_loss", "a_b_loss"], "a", ["a", "a_b"])
    {'loss': 'loss', 'a_b_loss': 'a_b_loss', 'val_loss': 'val_a_loss'}
    """
    mine = [log for log in logs if _owner(log, models, sets) == model]
    own = {full_name(log, model, sets, undo=True): log for log in mine}
    others = {log: log for log in logs if log not in own.values()}
    return others | own


def full_name(log: str, model: str, sets: Iterable[str] = (), undo: bool = False) -> str:
    """The name in the system of a log of one model, or the way back.

    >>> full_name("val_loss", "critics/0")
    'val_critics/0_loss'
    >>> full_name("val_clean_loss", "generator", ["clean"])
    'val_clean_generator_loss'
    """
    front = log_names.front(log, sets)
    name = log.removeprefix(front)
    return front + (name.removeprefix(f"{model}_") if undo else f"{model}_{name}")


def _owner(log: str, models: Iterable[str], sets: Iterable[str]) -> str:
    """The model that a log belongs to by its name; of `a` and `a_b`, the longer."""
    name = log.removeprefix(log_names.front(log, sets))
    return max((m for m in models if name.startswith(f"{m}_")), key=len, default="")


def _check(name: Any, callback: Any) -> None:
    if not isinstance(name, str):
        raise ValueError(f"For got {name!r} for the name of a model; it takes a string.")
    if not isinstance(callback, keras.callbacks.Callback) or isinstance(callback, For):
        raise ValueError(
            f"For('{name}', ...) takes one Keras callback, and got {callback!r}. Of several, give "
            "each a For; of a class, make an instance."
        )
    if isinstance(callback, (keras.callbacks.BackupAndRestore, Checkpoint, Profile)):
        what = type(callback).__name__
        raise ValueError(
            f"{what} is for a whole `fit`, of which '{name}' is a part. Give it without For."
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

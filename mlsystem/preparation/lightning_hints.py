"""Warn about hooks of Lightning and Keras and misspelt declarations, which mlsystem ignores."""

import inspect
import warnings
from collections.abc import Iterable, Mapping
from typing import Any

import keras

from mlsystem import _keras, _learner
from mlsystem._attribute_names import DECLARED
from mlsystem._checks import nearest
from mlsystem._learner import Learner, SystemBase
from mlsystem.routing import model_names

_CALLBACK = "Write a `keras.callbacks.Callback` with `{}` and give it to `fit(callbacks=[...])`."
_DATA = "Give the data to `fit`, or return an `ml.MLData` from the method `data`."
# Methods and attributes that Lightning reads, with the replacement here.
LIGHTNING = {
    "training_step": "Override `loss` or `compute_losses`, or `train_step(self, data)`.",
    "validation_step": "Override `test_step(self, data)`, which `evaluate` and validation run.",
    "on_train_start": _CALLBACK.format("on_train_begin"),
    "on_fit_start": _CALLBACK.format("on_train_begin"),
    "on_train_end": _CALLBACK.format("on_train_end"),
    "on_fit_end": _CALLBACK.format("on_train_end"),
    "on_train_epoch_start": _CALLBACK.format("on_epoch_begin"),
    "on_train_epoch_end": _CALLBACK.format("on_epoch_end"),
    "on_train_batch_start": _CALLBACK.format("on_train_batch_begin"),
    "on_train_batch_end": _CALLBACK.format("on_train_batch_end"),
    "on_validation_epoch_start": _CALLBACK.format("on_test_begin"),
    "on_validation_epoch_end": _CALLBACK.format("on_test_end"),
    "on_test_epoch_end": _CALLBACK.format("on_test_end"),
    "on_validation_start": _CALLBACK.format("on_test_begin"),
    "on_validation_end": _CALLBACK.format("on_test_end"),
    "on_before_optimizer_step": "Change gradients in `train_step`: `self.gradients(data)` gives "
    "them, and `self.apply_gradients` applies them.",
    "optimizer_step": "Update in `train_step(self, data)` by `self.update(data, models)`.",
    "automatic_optimization": "Override `train_step(self, data)` to update the models yourself.",
    "configure_callbacks": "Give callbacks to `fit(callbacks=[...])`.",
    "train_dataloader": _DATA,
    "val_dataloader": _DATA,
    "test_dataloader": _DATA,
}
# Methods and attributes of a Lightning module, with the replacement here.
CALLED = {
    "save_hyperparameters": "Leave it out: the arguments of the constructor are saved by `save`.",
    "hparams": "Set what you need as an attribute in the constructor.",
    "log_dict": "Call `self.log(name, value)` for each value.",
    "manual_backward": "Write `self.minimize(lambda: loss, models)`, where the function computes "
    "the loss.",
    "toggle_optimizer": "Leave it out: `self.update(data, models)` updates only the models named.",
    "untoggle_optimizer": "Leave it out.",
    "lr_schedulers": "Give each optimizer a schedule of `keras.optimizers.schedules`.",
    "current_epoch": "Count epochs in a callback, or batches by `self.optimizer.iterations`.",
    "global_step": "Read `self.optimizer.iterations`, the number of batches so far.",
    "trainer": "A system trains itself, by `fit`.",
}
_LOG = "Write `self.log(name, value)`: it logs the mean over the epoch and has no options."
# Parts of errors in a step, with the fix.
_ERRORS = {
    "'mappingproxy' object is not callable": "Read an optimizer by the name of its model: "
    "`self.optimizers['generator']`.",
    "does not require grad": "`loss.backward()` does not run in a step here. Write "
    "`self.minimize(lambda: loss, models)`, or `self.gradients(lambda: loss)` and "
    "`self.apply_gradients`, where the function computes the loss.",
    **{
        f"unexpected keyword argument '{name}'": _LOG
        for name in ("prog_bar", "on_step", "on_epoch", "logger", "sync_dist", "batch_size")
    },
}
_METHODS = ("forward", "loss", "configure_optimizer", "train_step", "test_step")
_OF_SYSTEMS = ("compute_losses", "configure_optimizers")
_OF_MODELS = {
    "configure_optimizers": "Override `configure_optimizer`, which returns the optimizer of the "
    "model."
}
# Methods of a model that a system does not call, and the methods that may call them as helpers.
_OF_MODELS_ONLY = {
    "configure_optimizer": "Override `configure_optimizers`, which returns `{model: optimizer}`.",
    "compute_loss": "Override `compute_losses`, which returns `{name: loss}`.",
}
_CALLERS = {
    "configure_optimizer": {"configure_optimizers", "compile"},
    "compute_loss": {"compute_losses", "loss", "train_step", "test_step"},
}


def check(learner: Learner) -> None:
    """Warn, once per name, if a model or a member defines a name that mlsystem does not read."""
    for layer in _keras.flat_layers(learner.model):
        if (part := _learner.of(layer)) is not None:
            _check(part)


def _check(learner: Learner) -> None:
    is_system = isinstance(learner, SystemBase)
    defined = dict(_own(learner.model))
    own = {name: value for name, value in defined.items() if name not in learner.told}
    learner.told |= set(own)
    unread = LIGHTNING | (_unread_by_systems(defined) if is_system else _OF_MODELS)
    cls = type(learner.model).__name__
    for name, value in own.items():
        if name in unread:
            _warn(f"mlsystem does not call or read `{name}` of {cls}. {unread[name]}")
        elif near := _near(learner, name, value, is_system):
            _warn(f"mlsystem does not read `{name}` of {cls}. Did you mean `{near}`?")


def _unread_by_systems(defined: Iterable[str]) -> dict[str, str]:
    """Return the methods of a model that nothing in a system calls, not even its own methods."""
    own = set(defined)
    return {name: how for name, how in _OF_MODELS_ONLY.items() if not own & _CALLERS[name]}


def missing(model: Any, name: str) -> str:
    """Return the error for a missing attribute that Lightning has. Empty for other attributes."""
    found = CALLED.get(name, "")
    return found and f"{type(model).__name__} has no `{name}`. {found}"


def advice(error: Exception) -> str:
    """Return the fix for an error in a step. Empty if none is known."""
    found = [advice for part, advice in _ERRORS.items() if part in str(error)]
    return f" {found[0]}" if found else ""


def _warn(text: str) -> None:
    warnings.warn(text, stacklevel=2)


def _own(model: Any) -> Iterable[tuple[str, Any]]:
    """Yield the public names that the user's classes and the object itself define."""
    end = type(model).__mro__.index(_base(model))
    for held in [model, *type(model).__mro__[:end]]:
        for name, value in vars(held).items():
            if name[0] != "_":
                yield name, value


def _near(learner: Learner, name: str, value: Any, is_system: bool) -> str | None:
    """Return the declaration that a name misspells, if the value suits it."""
    if hasattr(keras.Model, name) or hasattr(_base(learner.model), name):
        return None
    if inspect.isfunction(value):
        known = (*_METHODS, *_OF_SYSTEMS) if is_system else _METHODS
        helpers = [good for good in known if name.startswith(good) or name.endswith(good)]
        return None if helpers else nearest(name, known, 0.9)
    is_declaration = is_system and _declares(learner, value)
    return nearest(name, DECLARED, 0.8) if is_declaration else None


def _base(model: Any) -> Any:
    """Return the library's own class from which a user's class derives."""
    return next(c for c in type(model).__mro__ if c.__module__.startswith("mlsystem."))


def _declares(learner: Learner, value: Any) -> bool:
    """Return whether a value looks like a declaration about models, such as a routing or phases."""
    if isinstance(value, str):
        return value in ("sum", "own", "skip", "raise", "keep")
    if hasattr(value, "passes"):  # a balance
        return True
    if not isinstance(value, (Mapping, list, tuple)):
        return False
    names = list(value) if isinstance(value, Mapping) else keras.tree.flatten(value)
    known = learner.known_models()
    return bool(names) and all(isinstance(n, str) and model_names.named(n, known) for n in names)

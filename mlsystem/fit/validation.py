"""The validation sets of one `fit`: one without a name, or several by name.

Keras' trainer validates on one set. We pass it a `Validation` as that set, and Keras passes the
`Validation` to `evaluate`. So the rest of a validation stays Keras' own: its arguments,
`validation_freq`, and the use of the logs.
"""

from collections.abc import Callable, Iterable, Mapping
from typing import Any

import keras

from mlsystem import _keras

_EXAMPLE = "validation_data={'clean': (x, y), 'noisy': data_set}"


class Validation:
    """The validation sets of a `fit`.

    Args:
        sets: `{name: data}`, each as Keras takes `validation_data`. The name "" is not shown.
        given: the arguments of the `fit`.
    """

    def __init__(self, sets: Mapping[str, Any], given: Mapping[str, Any]) -> None:
        self.sets = {n: keras.utils.unpack_x_y_sample_weight(data) for n, data in sets.items()}
        self.names = [name for name in sets if name]
        self.inside: Any = None  # the `ValidateEvery` of this `fit`, if any
        self._epochs: dict[str, Any] = {}
        self._arguments = {
            "batch_size": given["validation_batch_size"] or given["batch_size"],
            "steps": given["validation_steps"],
        }

    def start(self, model: Any, evaluate: Callable[..., Any]) -> None:
        """Store the function that evaluates one set, and check the names of logs.

        Called when the model is ready, before training.
        """
        self._run = evaluate
        learner = model._mlsystem
        self._check(model, learner.metric_names() | set(learner.logs.owners))
        _keras.set_evaluated(model, self)  # or Keras would make an iterator over it

    def at_end_of_epoch(self, model: Any, callbacks: Any) -> dict[str, Any]:
        """Return the logs to show at the end of an epoch, without `val_`."""
        return self.evaluate(model, callbacks) if self.inside is None else self.inside.latest

    def evaluate(self, model: Any, callbacks: Any) -> dict[str, Any]:
        """Return the logs of an evaluation on each set, as `NAME_LOG`."""
        logs: dict[str, Any] = {}
        for name in self.sets:
            callbacks.prefix = _prefix(name)
            try:
                found = self._evaluate(model, name, callbacks)
            finally:
                callbacks.prefix = ""
            self._check(model, found)
            logs |= {_prefix(name) + log: value for log, value in found.items()}
        return logs

    def _evaluate(self, model: Any, name: str, callbacks: Any) -> dict[str, Any]:
        x, y, sample_weight = self.sets[name]
        _keras.set_evaluated(model, self._epochs.get(name))
        try:
            found = self._run(
                **{"x": x, "y": y, "sample_weight": sample_weight, **self._arguments},
                callbacks=callbacks,
                return_dict=True,
                _use_cached_eval_dataset=name in self._epochs,
            )
        except Exception as error:
            if name:
                error.add_note(f"This was on the validation set '{name}'.")
            raise
        finally:
            _keras.set_evaluated(model, self)
        self._epochs[name] = (
            model._mlsystem.call.arguments.epoch
        )  # the next validation reads this iterator again
        return dict(found)

    def _check(self, model: Any, logs: Iterable[str]) -> None:
        """Raise an error if a name of a set gives two logs the same name."""
        logs = list(logs)
        shown = dict.fromkeys(logs, f"what '{model.name}' logs itself")
        for name in self.names:
            for log in logs:
                if (full := f"{name}_{log}") in shown:
                    raise ValueError(
                        f"The log '{log}' of the validation set '{name}' would be 'val_{full}', "
                        f"which is the name of {shown[full]}. Give the set another name."
                    )
                shown[full] = f"'{log}' of the validation set '{name}'"


def read(given: Mapping[str, Any], always: bool) -> Validation | None:
    """Return the validation sets of a `fit`, or None if Keras can validate alone.

    Args:
        given: the arguments of the `fit`.
        always: whether to return one set without a name too.
    """
    data = given["validation_data"]
    if isinstance(data, Mapping):
        return Validation(data, given)
    return Validation({"": data}, given) if always and data is not None else None


def check(given: Mapping[str, Any]) -> None:
    """Raise an error for validation sets with invalid names or without data."""
    data, x = given["validation_data"], given["x"]
    if not isinstance(data, Mapping):
        return
    if not data:
        raise ValueError(f"validation_data is an empty dict. Name the sets, as in {_EXAMPLE}.")
    for name, part in data.items():
        if not isinstance(name, str) or not name:
            raise ValueError(f"validation_data names a set {name!r}; give names, as in {_EXAMPLE}.")
        if part is None:
            raise ValueError(f"The validation set '{name}' is None. Leave it out, or give data.")
    if isinstance(x, Mapping) and set(x) == set(data):
        raise ValueError(
            f"validation_data is a dict with the keys of x, {', '.join(map(repr, data))}, and a "
            "dict names several sets. For one set of such inputs give a tuple: "
            "validation_data=({...},) or ({...}, y)."
        )


def _prefix(name: str) -> str:
    return f"{name}_" if name else ""

"""What differs between the backends, and nothing else: the only folder that imports one.

Each engine file holds the same functions under the same names and arguments:

- `gradients(fn, plan, state)`: runs `fn() -> (losses, aux)` once and differentiates it; returns
  `(losses, aux, gradients)`. `plan(losses)` gives `[(weight of each loss, variables), ...]`, and
  each entry costs one backward pass, into its own variables only. A gradient is None where
  no loss of the entry depends on the variable. Variables assigned in `fn` stay assigned.
- `grad(fn)`: the function that gives the gradient of the sum of `fn(x)`, differentiable again.
- `apply(optimizer, gradients, weights, condition)`: one optimizer's update of its weights, where a
  condition, a boolean tensor, holds; None stands for one that does.
- `all_finite(gradients)`: whether some gradients are finite, and the sum of their squares too, a
  boolean tensor; None where the backend cannot act on it.
- `kept(value)`: the value of a variable, which assignments to the variable leave as it is.
- `changed(value, old)`: whether a variable, now of this value, may have been assigned since
  `old = kept(value)`.
- `step_scope(data)`: the context in which a step on a batch runs.
- `trace()`: what stands for the code that is traced at present: another in a branch that cannot
  assign to variables.
- `random_state()`, `set_random_state(state)`: the backend's own random generators, as
  arrays.
- `train_function(system)`, `test_function(system)`: the step as Keras' `fit` calls it, compiled.
- `predict_scope(system)`: the context in which Keras' `predict` runs.
- `rehearse(step, data, state)`: one step of a learner, whose effects on the `state`, and on what
  else its layers keep, are thrown away.
- `trial(fn, learner)`: a function of a batch that gives what `fn` gives of it, whose effects on
  the state of the learner are thrown away.
- `peek(system, *given)`: given what Keras' `fit` calls a train function with, the first batch in it
  and what to call it with after that; None where the data has ended.
- `runs_ahead()`: whether a step may still be computing when its function has returned.
- `reshuffle(epoch)`: has the order of shuffled arrays come from NumPy's generator, or the backend's
  own, anew in each epoch.
- `reads_ahead()`: whether batches are read while earlier ones are trained on.
- `aside(system)`: the context of an evaluation in the middle of an epoch, which changes no mode.
- `profile(folder)`: starts the profiler; gives what stops it, which gives the file of the trace and
  how to open it.
- `as_layer(net)`: a network of the backend's own kind as a Keras layer.
"""

import contextlib
import importlib
from types import ModuleType
from typing import Any

import keras


class _CannotTrain:
    """Stands where an engine would, on a backend that has no gradients."""

    def __init__(self, name: str) -> None:
        self._name = name

    @staticmethod
    def as_layer(net: Any) -> Any:
        return net

    @staticmethod
    def predict_scope(system: Any) -> contextlib.AbstractContextManager[Any]:
        return contextlib.nullcontext()

    def __getattr__(self, function: str) -> Any:
        raise RuntimeError(
            f"Keras runs on the backend '{self._name}', which has no gradients and can only "
            "predict. To train or evaluate, set KERAS_BACKEND to 'jax', 'torch' or 'tensorflow' "
            "before Keras is imported."
        )


def _choose() -> ModuleType | _CannotTrain:
    if name in ("jax", "tensorflow", "torch"):
        return importlib.import_module(f"mlsystem.engine.{name}")
    return _CannotTrain(name)


name = keras.backend.backend()
chosen: Any = _choose()

"""The private names of Keras for layers, functional models, variables and the global seed.

All of them exist in Keras 3.11, the oldest that mlsystem supports. The import of mlsystem fails
without these:

- `compute_output_spec`: builds a model from the shapes of a batch, without computing.
- `get_stateless_scope`: the values in force where state is carried explicitly (JAX).
- `Functional`, `functional_init_arguments`: models that are built from inputs and outputs.
- `DotNotTrackScope`: attaches something to a model that is already built.
- `global_state`, `global_seed_generator`: the generator behind draws without a seed. A fit that is
  interrupted and resumed, or a rehearsal, has to put it back.
- `uninitialized_variables`: variables that were created while only shapes are known. Keras gives
  them their values in a loop, which must not start a second time from inside.
- `Layer._flatten_layers`: all layers of a system, to look at their state and their attributes.
- `Layer._get_own_losses`: what `forward` of a system gave to `add_loss`.
- `Layer._clear_losses`: forgets those losses after a step that was only traced.

Without these, what needs them raises `Changed` or an `AttributeError`:

- `Layer._non_trainable_variables`: the statistics of one layer, without those of its sublayers.
- `Layer._tracker`: replaces a member of a system; adds the averages to an `EMA` that was called.
- `BatchNormalization._moments`: the statistics of the global batch, with several processes.
- `Layer._remat_mode`: whether a layer was made in a `keras.RematScope`.
- `Layer._called`: whether an `EMA` was called before.
- `Layer._call_signature`, `call_signature_parameters`, `_call_has_training_arg`,
  `_call_has_context_arg`: a `forward` that was redefined in a notebook.
- `Variable._value`: the value itself, which a compiled step takes and gives back.
- `Variable._direct_assign`: assigns from inside a scope (torch, TensorFlow).
- `Variable._dtype`: the stored dtype. In mixed precision, `dtype` is another one.
"""

import contextlib
import inspect
from collections.abc import Iterable, Iterator
from functools import partial
from typing import Any

import keras

from mlsystem._keras.lookup import Changed, attribute, needed

with needed():
    from keras.src.backend import compute_output_spec as compute_output_spec
    from keras.src.backend.common import global_state
    from keras.src.backend.common.stateless_scope import get_stateless_scope as get_stateless_scope
    from keras.src.models.functional import Functional as Functional
    from keras.src.models.model import functional_init_arguments as functional_init_arguments
    from keras.src.random.seed_generator import global_seed_generator
    from keras.src.utils.tracking import DotNotTrackScope as DotNotTrackScope

    flat_layers = keras.Layer._flatten_layers  # a layer and all the layers in it
    own_losses = keras.Layer._get_own_losses  # without those of sublayers and regularizers
    clear_losses = keras.Layer._clear_losses

own_state = partial(attribute, "_non_trainable_variables")
stored_dtype = partial(attribute, "_dtype")
was_called = partial(attribute, "_called")
remat_mode = partial(attribute, "_remat_mode")


def read_signature(layer: Any) -> None:
    """Have Keras read the arguments of a layer's `call`, which may have been redefined."""
    signature = inspect.signature(layer.call)
    layer._call_signature, layer.call_signature_parameters = signature, [*signature.parameters]
    layer._call_has_training_arg = "training" in signature.parameters
    known = layer._call_has_context_arg
    known.update({name: name in signature.parameters for name in known})


@contextlib.contextmanager
def own_variables() -> Iterator[None]:
    """Keep variables that wait for their values apart from those that are created inside."""
    waiting = global_state.get_global_attribute("uninitialized_variables")
    global_state.set_global_attribute("uninitialized_variables", [])
    try:
        yield
    finally:
        global_state.set_global_attribute("uninitialized_variables", waiting)


def untrack(layer: Any, part: Any) -> None:
    """Have a layer forget a part of it."""
    attribute("_tracker", layer).untrack(part)


def unlock(layer: Any) -> None:
    """Let weights be added to a layer that was built."""
    attribute("_tracker", layer).unlock()


def replace_moments(fn: Any) -> None:
    """Let `fn(layer, inputs, mask, moments)` compute mean and variance in batch norm."""
    cls = keras.layers.BatchNormalization
    moments = attribute("_moments", cls)
    cls._moments = lambda layer, inputs, mask: fn(layer, inputs, mask, moments)


def values(variables: list[Any]) -> list[Any]:
    """Return the values of variables themselves, uncast and outside any scope."""
    try:
        return [variable._value for variable in variables]
    except AttributeError as error:
        raise Changed("attribute '_value' in Variable") from error


def set_values(variables: list[Any], values: Iterable[Any]) -> None:
    """Replace the values of variables, like `assign` without its checks."""
    for variable, value in zip(variables, values, strict=True):
        variable._value = value


def assign_in_place(variable: Any, value: Any) -> None:
    """Assign to a variable itself, whatever scope there is; on torch and TensorFlow."""
    variable._direct_assign(value)


def known_global_seed() -> Any:
    """Return the state of the global generator; None if nothing has drawn without a seed yet."""
    return getattr(global_state.get_global_attribute("global_seed_generator"), "state", None)


def global_seed() -> Any:
    """Return the state of the global generator, which is made if there is none."""
    return global_seed_generator().state


def forget_global_seed() -> None:
    """Have the global generator made anew when something draws without a seed."""
    global_state.set_global_attribute("global_seed_generator", None)

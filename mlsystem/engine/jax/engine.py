"""The engine on JAX: the state is an argument and a result of each compiled step."""

import itertools
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any

import jax
import keras
from jax.extend import core

from mlsystem import _keras
from mlsystem.engine.base import Engine, Losses, Plan, newest_file
from mlsystem.engine.jax.compiled_step import CompiledStep, stateless
from mlsystem.engine.jax.gradients import input_gradient, routed_gradients
from mlsystem.scope import Scope

_place = core if hasattr(core, "get_opaque_trace_state") else jax.core  # in older versions
_trace: Callable[[], Any] = _place.get_opaque_trace_state

_keras.check_jax_trainer()


class JaxEngine(Engine):
    """See `Engine`."""

    name = "jax"

    def gradients(
        self, fn: Callable[[], tuple[Losses, Any]], plan: Plan, state: list[Any]
    ) -> tuple[Losses, Any, list[list[Any]]]:
        return routed_gradients(fn, plan, state)

    def grad(self, fn: Callable[[Any], Any]) -> Callable[[Any], Any]:
        return input_gradient(fn)

    def all_finite(self, gradients: list[Any]) -> Any:
        types = [jax.numpy.promote_types(g.dtype, "float32") for g in gradients]
        pairs = zip(gradients, types, strict=True)
        squares = [jax.numpy.vdot(g, g, preferred_element_type=dtype) for g, dtype in pairs]
        return sum(squares) < jax.numpy.inf  # as NaN is not

    def apply(
        self, optimizer: Any, gradients: list[Any], weights: list[Any], condition: Any = None
    ) -> None:
        if condition is not None and not isinstance(condition, jax.core.Tracer):
            if not condition:
                return
            condition = None
        if condition is None and not isinstance(optimizer, keras.optimizers.LossScaleOptimizer):
            optimizer.apply(gradients, weights)
            return
        # A branch that assigns would leak its tracers: hand it the values.
        variables = [*_keras.optimized_weights(optimizer), *optimizer.variables]
        before = [variable.value for variable in variables]

        def applied() -> list[Any]:
            return _applied(optimizer, gradients, weights, variables, before)

        after = applied() if condition is None else jax.lax.cond(condition, applied, lambda: before)
        for variable, value in zip(variables, after, strict=True):
            variable.assign(value)

    def kept(self, value: Any) -> Any:
        return value

    def changed(self, value: Any, old: Any) -> bool:
        return value is not old

    def train_function(self, system: Any) -> Callable[..., Any]:
        state = system._state_variables()
        return CompiledStep(system, system.train_step, state, no_state=((), (), (), ()))

    def test_function(self, system: Any) -> Callable[..., Any]:
        state = system._tested_variables()
        return CompiledStep(system, system.test_step, state, no_state=((), (), ()))

    def trace(self) -> Any:
        return _trace()

    def trial(self, fn: Callable[[Any], Any], learner: Any) -> Callable[[Any], Any]:
        state = learner._state_variables()
        compiled = jax.jit(lambda values, data: stateless(fn, state)(values, data)[0])
        return lambda data: compiled(_keras.values(state), data)

    def rehearse(self, step: Any, data: Any, state: list[Any]) -> None:
        if step.__self__.run_eagerly:  # with numbers to print, and to look at
            stateless(step, state)(_keras.values(state), data)
            return
        # Variables born inside get their values when the outer scope closes, outside the trace.
        with keras.StatelessScope():
            jax.eval_shape(stateless(step, state), _keras.values(state), data)

    def peek(self, system: Any, *given: Any) -> tuple[Any, tuple[Any, ...]]:
        state, batches = given
        first = next(batches, None)
        return first, (state, batches if first is None else itertools.chain([first], batches))

    def reads_ahead(self) -> bool:
        return jax.default_backend() != "cpu"

    def profile(self, folder: str) -> Callable[[], tuple[Path, str]]:
        jax.profiler.start_trace(folder, create_perfetto_trace=True)

        def stop() -> tuple[Path, str]:
            jax.profiler.stop_trace()  # type: ignore[no-untyped-call]
            return newest_file(folder, "perfetto_trace.json.gz"), (
                "Open it at https://ui.perfetto.dev, or all there is to it with "
                f"`xprof --logdir '{folder}'` (python -m pip install xprof)."
            )

        return stop

    def as_layer(self, net: Any) -> Any:
        if any(base.__module__.startswith("flax.linen") for base in type(net).__mro__):
            return keras.layers.FlaxLayer(net)
        return net


def _applied(
    optimizer: Any, gradients: list[Any], weights: list[Any], variables: list[Any], before: Any
) -> list[Any]:
    """Compute the values of the weights, and of the optimizer's variables, after an update."""
    if isinstance(optimizer, keras.optimizers.LossScaleOptimizer):
        return _applied_scaled(optimizer, gradients, weights, before)
    with Scope(zip(variables, before, strict=True)) as scope:
        optimizer.apply(gradients, weights)
    return [
        _as(scope.get_current_value(variable), old)
        for variable, old in zip(variables, before, strict=True)
    ]


def _applied_scaled(optimizer: Any, gradients: list[Any], weights: list[Any], before: Any) -> Any:
    """Do the same with an optimizer that wants a gradient, or None, for each of its weights."""
    found = {id(weight): g for weight, g in zip(weights, gradients, strict=True)}
    known = _keras.optimized_weights(optimizer)
    count, every = len(known), [found.get(id(weight)) for weight in known]
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", "Gradients do not exist for variables")
        new, state = optimizer.stateless_apply(before[count:], every, before[:count])
    return [*new, *state]


def _as(value: Any, like: Any) -> Any:
    return jax.lax.convert_element_type(value, like.dtype)  # not of a weak type

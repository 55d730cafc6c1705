"""The engine on JAX: the state is an argument and a result of each compiled step."""

import contextlib
import itertools
import warnings
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any, cast

import jax
import keras
from jax.extend import core
from keras import ops

from mlsystem import _keras
from mlsystem.engine.base import Engine, Forward, Plan, Routed, State, newest_file
from mlsystem.engine.jax import shards
from mlsystem.engine.jax.compiled_step import CompiledStep, SwitchedStep, stateless
from mlsystem.engine.jax.host_zeros import host_zeros
from mlsystem.engine.jax.linearized import Linearized, Pure, readable
from mlsystem.engine.jax.looped_step import gatherer
from mlsystem.engine.variable_scope import Scope

if TYPE_CHECKING:
    from mlsystem.engine.jax.distribution import JaxReplicas

_place = core if hasattr(core, "get_opaque_trace_state") else jax.core  # in older versions

_keras.check_jax_trainer()


class JaxEngine(Engine):
    """See `Engine`."""

    name = "jax"
    shards_models = True
    SWITCHES = True

    def gradients(self, fn: Forward, plan: Plan, state: State) -> Routed:
        variables = state()
        weights = [variable for variable in variables if variable.trainable]
        pure = Pure(fn, weights, variables)
        values = [variable.value for variable in weights]
        with readable():
            losses, linear, (aux, updates) = jax.linearize(pure, values, has_aux=True)
        pure.assign(updates)
        linearized = Linearized(linear, values, losses)
        position = {id(variable): i for i, variable in enumerate(weights)}
        rows = [
            linearized.backward(coefficients, [position[id(v)] for v in variables])
            for coefficients, variables in plan(losses)
        ]
        return losses, aux, rows

    def grad(self, fn: Callable[[Any], Any]) -> Callable[[Any], Any]:
        def gradient(x: Any) -> Any:
            x = jax.tree.map(ops.convert_to_tensor, x)
            pure = Pure(lambda x: (ops.sum(fn(x)), None), [], [])
            found, (_, updates) = jax.grad(lambda x: pure([], x), has_aux=True)(x)
            pure.assign(updates)
            return found

        return gradient

    def all_finite(self, gradients: list[Any]) -> Any:
        squares = [_square(g, jax.numpy.promote_types(g.dtype, "float32")) for g in gradients]
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
        variables = _changed_by(optimizer)
        before = [variable.value for variable in variables]

        def applied() -> list[Any]:
            return _applied(optimizer, gradients, weights, before)

        after = applied() if condition is None else jax.lax.cond(condition, applied, lambda: before)
        for variable, value in zip(variables, after, strict=True):
            variable.assign(value)

    def kept(self, value: Any) -> Any:
        return value

    def changed(self, value: Any, old: Any) -> bool:
        return value is not old

    def read(self, values: list[Any]) -> Any:
        return jax.device_get(values)

    def initial_values(self) -> contextlib.AbstractContextManager[Any]:
        return host_zeros()

    def train_function(self, system: Any) -> Callable[..., Any]:
        state = system._mlsystem.state_variables()
        return CompiledStep(system, system.train_step, state, no_state=((), (), (), ()))

    def switched(self, steps: list[Any]) -> Callable[..., Any]:
        return SwitchedStep(steps)

    def test_function(self, system: Any) -> Callable[..., Any]:
        state = _tested(system)
        return CompiledStep(system, system.test_step, state, no_state=((), (), ()))

    @contextlib.contextmanager
    def predict_scope(self, system: Any) -> Iterator[None]:
        if self.replicas.count == 1:
            yield
            return
        step, replicas = system.predict_step, cast("JaxReplicas", self.replicas)

        def readable_everywhere(*given: Any) -> Any:
            outputs, state = step(*given)
            return replicas.everywhere(outputs), state

        vars(system)["predict_step"] = readable_everywhere
        try:
            yield
        finally:
            del vars(system)["predict_step"]

    def compiler(self, system: Any, step: Any = None) -> str:
        return "jax.jit" if system.jit_compile and not system.run_eagerly else ""

    def is_sharded(self, variable: Any) -> bool:
        return shards.is_sharded(_keras.values([variable])[0])

    def trace(self) -> Any:
        return _place.get_opaque_trace_state()

    def trial(self, fn: Callable[[Any], Any], learner: Any) -> Callable[[Any], Any]:
        state = learner._mlsystem.state_variables()
        compiled = jax.jit(lambda values, data: stateless(fn, state)(values, data)[0])
        return lambda data: compiled(_keras.values(state), data)

    def rehearse(self, step: Any, data: Any, state: list[Any]) -> None:
        if step.__self__.run_eagerly:  # user code may print numbers or debug
            stateless(step, state)(_keras.values(state), data)
            return
        # Variables made inside get their values when the outer scope closes, outside the trace.
        with keras.StatelessScope():
            jax.eval_shape(stateless(step, state), _keras.values(state), data)

    def step_memory(self, system: Any, data: Any) -> int | None:
        step: Any = self.train_function(system)
        if not hasattr(step.step, "lower"):  # it runs eagerly
            return None
        found = step.lower(data).compile().memory_analysis()
        if found is None:
            return None
        given = found.argument_size_in_bytes + found.output_size_in_bytes
        return given + found.temp_size_in_bytes - found.alias_size_in_bytes

    def device_memory(self) -> int | None:
        stats = jax.local_devices()[0].memory_stats() or {}
        return stats.get("bytes_limit")

    def is_out_of_memory(self, error: BaseException) -> bool:
        return "RESOURCE_EXHAUSTED" in str(error) or super().is_out_of_memory(error)

    def peek(self, system: Any, *given: Any) -> tuple[Any, tuple[Any, ...]]:
        state, batches = given
        if hasattr(batches, "peek"):
            return batches.peek(), given
        first = next(batches, None)
        return first, (state, batches if first is None else itertools.chain([first], batches))

    def no_loop(self, system: Any) -> str:
        if not self.compiler(system):
            return "its steps run eagerly"
        if keras.distribution.distribution() is not None or jax.process_count() > 1:
            return "it trains on several devices"
        return ""

    def no_groups(self, system: Any) -> str:
        return self.no_loop(system)

    def gatherer(self, arrays: Any) -> Callable[[Any], Any]:
        return gatherer(arrays)

    def reads_ahead(self) -> bool:
        return jax.default_backend() != "cpu"

    def full_precision(self) -> contextlib.AbstractContextManager[Any]:
        precision: contextlib.AbstractContextManager[Any] = jax.default_matmul_precision("highest")
        return precision

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
        is_flax = any(base.__module__.startswith("flax.linen") for base in type(net).__mro__)
        return keras.layers.FlaxLayer(net) if is_flax else net


def _square(x: Any, dtype: Any) -> Any:
    # `vdot` would flatten `x` first, and so collect an array that is split over devices.
    return jax.numpy.tensordot(x, x, x.ndim, preferred_element_type=dtype)


def _changed_by(optimizer: Any) -> list[Any]:
    return [*_keras.optimized_weights(optimizer), *optimizer.variables]


def _applied(optimizer: Any, gradients: list[Any], weights: list[Any], before: Any) -> Any:
    """Compute the values of the weights, and of the optimizer's variables, after an update."""
    if isinstance(optimizer, keras.optimizers.LossScaleOptimizer):
        return _applied_scaled(optimizer, gradients, weights, before)
    pairs = list(zip(_changed_by(optimizer), before, strict=True))
    with Scope(pairs) as scope:
        optimizer.apply(gradients, weights)
    strong = jax.lax.convert_element_type  # to a value of no weak type
    return [strong(scope.get_current_value(variable), old.dtype) for variable, old in pairs]


def _applied_scaled(optimizer: Any, gradients: list[Any], weights: list[Any], before: Any) -> Any:
    """Do the same with an optimizer that wants a gradient, or None, for each of its weights."""
    found = {id(weight): g for weight, g in zip(weights, gradients, strict=True)}
    known = _keras.optimized_weights(optimizer)
    count, every = len(known), [found.get(id(weight)) for weight in known]
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", "Gradients do not exist for variables")
        new, state = optimizer.stateless_apply(before[count:], every, before[:count])
    return [*new, *state]


def _tested(system: Any) -> list[Any]:
    """The variables that a test step may read or assign: of optimizers only counts and rates."""
    optimizer = getattr(system, "optimizer", None)
    held = optimizer.variables if optimizer is not None else []
    slots = {id(variable) for variable in held if variable.shape}
    return [v for v in system._mlsystem.state_variables() if id(v) not in slots]

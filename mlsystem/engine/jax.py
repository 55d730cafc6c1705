"""The engine on JAX: state carried explicitly, one vjp per distinct row over one traced forward.

Keras' variables are read and assigned as on the other backends; inside a step, a scope holds
their values, and what is assigned inside a transformation is assigned again outside it.
"""

import contextlib
from collections.abc import Callable, Iterable
from typing import Any

import jax
import keras
from jax.extend import core
from jax.interpreters import partial_eval
from keras import ops

from mlsystem import _keras
from mlsystem.scope import Scope

_NO_STATE: dict[str, Any] = {"train": ((), (), (), ()), "test": ((), (), ())}


class _Pure:
    """A function over Keras variables as a function of their values, which JAX can transform."""

    def __init__(self, fn: Callable[[], Any], weights: list[Any], state: list[Any]) -> None:
        self.fn, self.weights, self.state = fn, weights, state
        self.assigned: dict[int, Any] = {}

    def __call__(self, values: list[Any]) -> Any:
        with Scope(zip(self.weights, values, strict=True), self.state) as scope:
            result = self.fn()
        self.assigned.update(scope.assigned)
        return result, scope.updates()

    def assign(self, updates: dict[int, Any]) -> None:
        """Makes what was assigned inside hold outside too."""
        for key, value in updates.items():
            self.assigned[key].assign(value)


def gradients(fn: Callable[[], Any], plan: Callable[[Any], Any], state: list[Any]) -> Any:
    """See `mlsystem.engine`."""
    weights = [variable for variable in state if variable.trainable]
    values = [variable.value for variable in weights]
    pure = _Pure(fn, weights, state)
    tracing = any(isinstance(value, jax.core.Tracer) for value in values)
    run = _Traced(pure, values) if tracing else _Eager(pure, values)
    (losses, aux), updates = run.result
    pure.assign(updates)
    position = {id(variable): i for i, variable in enumerate(weights)}
    rows = [
        run.gradient(coefficients, [position[id(v)] for v in variables])
        for coefficients, variables in plan(losses)
    ]
    return losses, aux, rows


class _Eager:
    """Runs the function itself for each row, on concrete values, as someone who debugs wants it."""

    def __init__(self, pure: _Pure, values: list[Any]) -> None:
        self.pure, self.values = pure, values
        self.result = pure(values)

    def gradient(self, coefficients: dict[str, Any], chosen: list[int]) -> list[Any]:
        def total(row: list[Any]) -> Any:
            values = list(self.values)
            for i, value in zip(chosen, row, strict=True):
                values[i] = value
            (losses, _), _ = self.pure(values)
            return _total([losses[name] for name in coefficients], list(coefficients.values()))

        return jax.grad(total)([self.values[i] for i in chosen])


class _Traced:
    """Traces the function once; each row differentiates the part of the trace that it needs.

    XLA merges the rows' equal forward passes. (One vjp over all losses, pulled back with zero
    cotangents for the others, is not folded: it was measured 1.6-1.9 times slower.)
    """

    def __init__(self, pure: _Pure, values: list[Any]) -> None:
        self.values = values
        self.closed, shapes = jax.make_jaxpr(pure, return_shape=True)(values)
        flat = core.jaxpr_as_fun(self.closed)(*values)
        structure = jax.tree.structure(shapes)
        self.result = jax.tree.unflatten(structure, flat)
        self.positions = jax.tree.unflatten(structure, range(len(flat)))[0][0]

    def gradient(self, coefficients: dict[str, Any], chosen: list[int]) -> list[Any]:
        by_position = sorted(
            ((self.positions[n], w) for n, w in coefficients.items()), key=lambda pair: pair[0]
        )
        part, reached = _part(self.closed, {i for i, _ in by_position})
        live = [i for i in chosen if i in reached]

        def total(row: list[Any]) -> Any:
            values = list(self.values)
            for i, value in zip(live, row, strict=True):
                values[i] = value
            return _total(core.jaxpr_as_fun(part)(*values), [w for _, w in by_position])

        found = jax.grad(total)([self.values[i] for i in live]) if live else []
        gradients = dict(zip(live, found, strict=True))
        return [gradients.get(i) for i in chosen]


def _part(closed: Any, outputs: set[int]) -> tuple[Any, set[int]]:
    """The part of a traced function that some outputs need, and the inputs they depend on."""
    used = [i in outputs for i in range(len(closed.jaxpr.outvars))]
    jaxpr, _ = partial_eval.dce_jaxpr(closed.jaxpr, used, instantiate=True)
    return core.ClosedJaxpr(jaxpr, closed.consts), _reached(jaxpr)


def _reached(jaxpr: Any) -> set[int]:
    """The positions of the inputs that the outputs of a trace depend on, `stop_gradient` apart."""
    felt = {v for v in jaxpr.outvars if isinstance(v, core.Var)}
    for equation in reversed(jaxpr.eqns):
        if felt.intersection(equation.outvars) and equation.primitive.name != "stop_gradient":
            felt.update(v for v in equation.invars if isinstance(v, core.Var))
    return {i for i, v in enumerate(jaxpr.invars) if v in felt}


def _total(losses: Iterable[Any], weights: Iterable[Any]) -> Any:
    return sum(loss * weight for loss, weight in zip(losses, weights, strict=True))


def grad(fn: Callable[[Any], Any]) -> Callable[[Any], Any]:
    """See `mlsystem.engine`."""

    def gradient(x: Any) -> Any:
        x = jax.tree.map(ops.convert_to_tensor, x)
        assigned: dict[int, Any] = {}

        def total(x: Any) -> Any:
            pure = _Pure(lambda: ops.sum(fn(x)), [], [])
            value, updates = pure([])
            assigned.update(pure.assigned)
            return value, updates

        found, updates = jax.grad(total, has_aux=True)(x)
        for key, value in updates.items():
            assigned[key].assign(value)
        return found

    return gradient


def apply(optimizer: Any, gradients: list[Any], weights: list[Any]) -> None:
    """See `mlsystem.engine`."""
    if not isinstance(optimizer, _keras.LossScaleOptimizer):
        optimizer.apply(gradients, weights)
        return
    # It branches, and a branch that assigns would leak its tracers: hand it the values.
    state = optimizer.variables
    new_weights, new_state = optimizer.stateless_apply(
        [v.value for v in state], gradients, [v.value for v in weights]
    )
    for variable, value in zip([*weights, *state], [*new_weights, *new_state], strict=True):
        variable.assign(value)


def step_scope() -> contextlib.AbstractContextManager[Any]:
    """See `mlsystem.engine`."""
    return contextlib.nullcontext()


def train_function(system: Any) -> Callable[..., Any]:
    """See `mlsystem.engine`."""
    return _function(system, system.train_step, _NO_STATE["train"])


def test_function(system: Any) -> Callable[..., Any]:
    """See `mlsystem.engine`."""
    return _function(system, system.test_step, _NO_STATE["test"])


def _function(system: Any, step: Callable[[Any], Any], no_state: Any) -> Callable[..., Any]:
    """The step as Keras' jax trainer calls it: with its state, which ours keeps in the variables.

    That is what lets a callback assign and call between two batches, as on the other backends.
    """
    state = system._state_variables()
    compiled = _stateless(step, state)
    if system.jit_compile and not system.run_eagerly:
        compiled = jax.jit(compiled, donate_argnums=0, out_shardings=_shardings(state))

    def function(_: Any, batches: Any) -> Any:
        data = next(batches)
        logs, values = compiled(_own_values(state), data)
        for variable, value in zip(state, values, strict=True):
            _keras.set_value(variable, value)
        return logs, no_state

    return function


def _stateless(step: Callable[[Any], Any], state: list[Any]) -> Callable[..., Any]:
    def stateless(values: list[Any], data: Any) -> Any:
        with keras.StatelessScope(zip(state, values, strict=True), collect_losses=True) as scope:
            logs = step(data)
            return logs, [scope.get_current_value(variable) for variable in state]

    return stateless


def _shardings(state: list[Any]) -> Any:
    if keras.distribution.distribution() is None:
        return None
    return None, [variable.value.sharding for variable in state]


def _own_values(state: list[Any]) -> list[Any]:
    # A buffer can be donated once only, and `a.assign(b.value)` makes two variables share one.
    values = [_keras.value(variable) for variable in state]
    if len({id(value) for value in values}) == len(values):
        return values
    seen: set[int] = set()
    for i, value in enumerate(values):
        values[i] = jax.numpy.copy(value) if id(value) in seen else value
        seen.add(id(value))
    return values


def rehearse(step: Callable[[Any], Any], data: Any, state: list[Any]) -> None:
    """See `mlsystem.engine`."""
    # Variables born inside get their values when the outer scope closes, outside the trace.
    with keras.StatelessScope():
        jax.eval_shape(_stateless(step, state), [_keras.value(v) for v in state], data)


def as_layer(net: Any) -> Any:
    """See `mlsystem.engine`."""
    if any(base.__module__.startswith("flax.linen") for base in type(net).__mro__):
        return keras.layers.FlaxLayer(net)
    return net

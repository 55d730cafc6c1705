"""The engine on JAX: state carried explicitly, one linearization, one transpose per distinct row.

Keras' variables are read and assigned as on the other backends; inside a step, a scope holds
their values, and what is assigned inside a transformation is assigned again outside it.
"""

import contextlib
import itertools
import warnings
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import jax
import keras
from jax.extend import core
from jax.interpreters import partial_eval
from keras import ops

from mlsystem import _keras
from mlsystem.engine.jax_function import Function, stateless
from mlsystem.engine.scope import Scope

_place = core if hasattr(core, "get_opaque_trace_state") else jax.core  # in older versions
_trace: Callable[[], Any] = _place.get_opaque_trace_state


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
    pure = _Pure(fn, weights, state)

    def losses_of(values: list[Any]) -> Any:
        (losses, aux), updates = pure(values)
        return losses, (aux, updates)

    values = [variable.value for variable in weights]
    with _readable():
        losses, linear, (aux, updates) = jax.linearize(losses_of, values, has_aux=True)
    pure.assign(updates)
    trace = _Linear(linear, values, losses)
    position = {id(variable): i for i, variable in enumerate(weights)}
    rows = [
        trace.backward(coefficients, [position[id(v)] for v in variables])
        for coefficients, variables in plan(losses)
    ]
    return losses, aux, rows


@contextlib.contextmanager
def _readable() -> Iterator[None]:
    """Lets `float` read what is differentiated where it has a number: in eager steps.

    JAX lets `int` and `bool` do so. What NumPy computes would be missing in the gradient.
    """
    tracer: Any = jax.core.Tracer
    known = tracer.__float__

    def read(self: Any) -> float:
        value = self.to_concrete_value()
        return float(known(self) if value is None else value)

    tracer.__float__ = read
    try:
        yield
    finally:
        tracer.__float__ = known


class _Linear:
    """The losses as a linear function of changes in the weights: each row transposes its part.

    The forward pass is computed once for all rows, and each backward pass holds only what lies
    between the row's losses and its weights. (One vjp of all losses, pulled back with zero
    cotangents for the others, computes what it throws away.)
    """

    def __init__(self, linear: Callable[..., Any], values: list[Any], losses: Any) -> None:
        self.values, self.names = values, sorted(losses)
        self.closed = jax.make_jaxpr(lambda *v: jax.tree.leaves(linear(list(v))))(*values)

    def backward(self, weights: dict[str, Any], chosen: list[int]) -> list[Any]:
        """The gradient of a weighted sum of losses; None where it does not depend on the value."""
        names = [name for name in self.names if name in weights]
        used = [name in weights for name in self.names]
        jaxpr, felt = partial_eval.dce_jaxpr(self.closed.jaxpr, used)
        positions = [i for i, is_felt in enumerate(felt) if is_felt]
        reached = dict(zip(positions, jaxpr.invars, strict=True))
        live = [i for i in chosen if i in reached]
        part = _part(jaxpr, self.closed.consts, {reached[i] for i in live})

        def total(row: list[Any]) -> Any:
            still = {i: jax.numpy.zeros_like(self.values[i]) for i in reached}
            changes = still | dict(zip(live, row, strict=True))
            losses = zip(core.jaxpr_as_fun(part)(*changes.values()), names, strict=True)
            return sum(loss * weights[name] for loss, name in losses)

        gradients = dict(zip(live, _transposed(total, [self.values[i] for i in live]), strict=True))
        return [gradients.get(i) for i in chosen]


def _transposed(total: Callable[..., Any], like: list[Any]) -> list[Any]:
    if not like:
        return []
    one = jax.numpy.ones((), jax.eval_shape(total, like).dtype)
    [found] = jax.linear_transpose(total, like)(one)
    return found


def _part(jaxpr: Any, consts: list[Any], moving: set[Any]) -> Any:
    """The part of a linear trace through which some of its inputs move; the others stay zero."""
    still = {v for v in jaxpr.invars if v not in moving}
    same: dict[Any, Any] = {}  # sums of which one summand is zero are the other
    needed: dict[Any, None] = {}  # zeros that an equation asks for
    kept = []
    for equation in jaxpr.eqns:
        inputs = [same.get(a, a) if isinstance(a, core.Var) else a for a in equation.invars]
        variables = [a for a in inputs if isinstance(a, core.Var)]
        zeros = [a for a in variables if a in still]
        if zeros and moving.isdisjoint(variables):
            still.update(equation.outvars)
        elif zeros and equation.primitive.name == "add_any":
            same[equation.outvars[0]] = next(a for a in inputs if a not in zeros)
        else:
            needed |= dict.fromkeys(zeros)
            kept.append(equation.replace(invars=inputs))
            moving = moving.union(() if moving.isdisjoint(variables) else equation.outvars)
    outputs = [same.get(a, a) if isinstance(a, core.Var) else a for a in jaxpr.outvars]
    needed |= dict.fromkeys(a for a in outputs if isinstance(a, core.Var) and a in still)
    needed = {a: None for a in needed if a not in jaxpr.invars}
    jaxpr = jaxpr.replace(constvars=[*jaxpr.constvars, *needed], eqns=kept, outvars=outputs)
    values = [jax.numpy.zeros(a.aval.shape, a.aval.dtype) for a in needed]
    return core.ClosedJaxpr(jaxpr, [*consts, *values])


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


def apply(optimizer: Any, gradients: list[Any], weights: list[Any], condition: Any = None) -> None:
    """See `mlsystem.engine`."""
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


def _applied(
    optimizer: Any, gradients: list[Any], weights: list[Any], variables: list[Any], before: Any
) -> list[Any]:
    """The values of weights, and of what the optimizer keeps, after an update."""
    if isinstance(optimizer, keras.optimizers.LossScaleOptimizer):
        return _applied_scaled(optimizer, gradients, weights, before)
    with Scope(zip(variables, before, strict=True)) as scope:
        optimizer.apply(gradients, weights)
    return [
        _as(scope.get_current_value(variable), old)
        for variable, old in zip(variables, before, strict=True)
    ]


def _applied_scaled(optimizer: Any, gradients: list[Any], weights: list[Any], before: Any) -> Any:
    """The same where the optimizer wants a gradient, or None, for all of its weights."""
    found = {id(weight): g for weight, g in zip(weights, gradients, strict=True)}
    known = _keras.optimized_weights(optimizer)
    count, every = len(known), [found.get(id(weight)) for weight in known]
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", "Gradients do not exist for variables")
        new, state = optimizer.stateless_apply(before[count:], every, before[:count])
    return [*new, *state]


def _as(value: Any, like: Any) -> Any:
    return jax.lax.convert_element_type(value, like.dtype)  # of no weak type


def all_finite(gradients: list[Any]) -> Any:
    """See `mlsystem.engine`."""
    types = [jax.numpy.promote_types(g.dtype, "float32") for g in gradients]
    pairs = zip(gradients, types, strict=True)
    squares = [jax.numpy.vdot(g, g, preferred_element_type=dtype) for g, dtype in pairs]
    return sum(squares) < jax.numpy.inf  # as NaN is not


def kept(value: Any) -> Any:
    """See `mlsystem.engine`."""
    return value


def changed(value: Any, old: Any) -> bool:
    """See `mlsystem.engine`."""
    return value is not old


def step_scope(data: Any) -> contextlib.AbstractContextManager[Any]:
    """See `mlsystem.engine`."""
    return contextlib.nullcontext()


def trace() -> Any:
    """See `mlsystem.engine`."""
    return _trace()


def random_state() -> Any:
    """See `mlsystem.engine`."""
    return None


def set_random_state(state: Any) -> None:
    """See `mlsystem.engine`."""


_keras.check_jax_trainer()


def train_function(system: Any) -> Callable[..., Any]:
    """See `mlsystem.engine`."""
    state = system._mlsystem.state_variables()
    return Function(system, system.train_step, state, no_state=((), (), (), ()))


def test_function(system: Any) -> Callable[..., Any]:
    """See `mlsystem.engine`."""
    state = _tested(system)
    return Function(system, system.test_step, state, no_state=((), (), ()))


def _tested(system: Any) -> list[Any]:
    """The variables that a test step may read or assign: of optimizers only counts and rates."""
    optimizer = getattr(system, "optimizer", None)
    held = optimizer.variables if optimizer is not None else []
    slots = {id(variable) for variable in held if variable.shape}
    return [v for v in system._mlsystem.state_variables() if id(v) not in slots]


def predict_scope(system: Any) -> contextlib.AbstractContextManager[Any]:
    """See `mlsystem.engine`."""
    return contextlib.nullcontext()


def rehearse(step: Any, data: Any, state: list[Any]) -> None:
    """See `mlsystem.engine`."""
    if step.__self__.run_eagerly:  # with numbers to print, and to look at
        stateless(step, state)(_keras.values(state), data)
        return
    # Variables born inside get their values when the outer scope closes, outside the trace.
    with keras.StatelessScope():
        jax.eval_shape(stateless(step, state), _keras.values(state), data)


def trial(fn: Callable[[Any], Any], learner: Any) -> Callable[[Any], Any]:
    """See `mlsystem.engine`."""
    state = learner._mlsystem.state_variables()
    compiled = jax.jit(lambda values, data: stateless(fn, state)(values, data)[0])
    return lambda data: compiled(_keras.values(state), data)


def peek(system: Any, *given: Any) -> tuple[Any, tuple[Any, ...]]:
    """See `mlsystem.engine`."""
    state, batches = given
    first = next(batches, None)
    return first, (state, batches if first is None else itertools.chain([first], batches))


def runs_ahead() -> bool:
    """See `mlsystem.engine`."""
    return True


def reshuffle(epoch: Any) -> None:
    """See `mlsystem.engine`."""


def reads_ahead() -> bool:
    """See `mlsystem.engine`."""
    return jax.default_backend() != "cpu"


def aside(system: Any) -> contextlib.AbstractContextManager[Any]:
    """See `mlsystem.engine`."""
    return contextlib.nullcontext()


def profile(folder: str) -> Callable[[], tuple[Path, str]]:
    """See `mlsystem.engine`."""
    jax.profiler.start_trace(folder, create_perfetto_trace=True)

    def stop() -> tuple[Path, str]:
        jax.profiler.stop_trace()  # type: ignore[no-untyped-call]
        written = Path(folder).rglob("perfetto_trace.json.gz")
        path = max(written, key=lambda path: path.stat().st_mtime_ns)
        return path, (
            "Open it at https://ui.perfetto.dev, or all there is to it with "
            f"`xprof --logdir '{folder}'` (python -m pip install xprof)."
        )

    return stop


def as_layer(net: Any) -> Any:
    """See `mlsystem.engine`."""
    if any(base.__module__.startswith("flax.linen") for base in type(net).__mro__):
        return keras.layers.FlaxLayer(net)
    return net

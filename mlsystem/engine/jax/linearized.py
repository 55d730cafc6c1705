"""A forward pass as a function that JAX can differentiate, one backward pass at a time.

Keras' variables are read and assigned as on the other backends: a scope holds their values while
JAX transforms a function. Assignments inside are repeated outside.
"""

import contextlib
from collections.abc import Callable, Iterator
from typing import Any

import jax
from jax.extend import core
from jax.interpreters import partial_eval

from mlsystem.engine.base import Losses
from mlsystem.engine.scope import Scope


class Pure:
    """A function `fn(*args) -> (result, aux)` over Keras variables, as a function of their values.

    JAX can transform it. It returns `result, (aux, updates)`.
    """

    def __init__(self, fn: Callable[..., Any], weights: list[Any], state: list[Any]) -> None:
        self.fn, self.weights, self.state = fn, weights, state
        self.assigned: dict[int, Any] = {}

    def __call__(self, values: list[Any], *args: Any) -> Any:  # noqa: D102
        with Scope(zip(self.weights, values, strict=True), self.state) as scope:
            result, aux = self.fn(*args)
        self.assigned.update(scope.assigned)
        return result, (aux, scope.updates())

    def assign(self, updates: dict[int, Any]) -> None:
        """Repeat outside what was assigned inside."""
        for key, value in updates.items():
            self.assigned[key].assign(value)


@contextlib.contextmanager
def readable() -> Iterator[None]:
    """Let `float` read a tensor that is differentiated, if it has a number: in eager steps.

    JAX lets `int` and `bool` do so. A result of NumPy would be missing in the gradient.
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


class Linearized:
    """The losses as a linear function of changes in the weights. Each row transposes its part.

    The forward pass is computed once for all rows. Each backward pass computes only what lies
    between the losses and the weights of its row. One vjp of all losses, with zero cotangents for
    the losses of other rows, would compute gradients that nobody uses.
    """

    def __init__(self, linear: Callable[..., Any], values: list[Any], losses: Losses) -> None:
        self.values, self.names = values, sorted(losses)
        self.closed = jax.make_jaxpr(lambda *v: jax.tree.leaves(linear(list(v))))(*values)

    def backward(self, weights: dict[str, Any], chosen: list[int]) -> list[Any]:
        """Compute the gradient of a weighted sum of losses; None for a value without influence."""
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
    """Cut out the part of a linear trace that some inputs reach. The other inputs are zero."""
    still = {v for v in jaxpr.invars if v not in moving}
    same: dict[Any, Any] = {}  # a sum with a summand that is zero is the other summand
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

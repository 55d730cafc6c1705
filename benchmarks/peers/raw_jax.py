"""A loop in JAX with Flax (linen) and Optax, as an expert writes it.

One jitted step takes the whole state and returns it in the same memory. It sums the losses up in
the state, so that nothing is read before a segment ends.
"""

import contextlib
from collections.abc import Callable, Iterable
from typing import Any

import jax
import jax.numpy as jnp
import optax

from benchmarks.networks.flax import networks
from benchmarks.peers import steps
from benchmarks.program import Program
from benchmarks.workloads import EPSILON, MOMENTUM

State = dict[str, Any]


class RawJax(Program):
    """The loop and its step."""

    def build(self) -> None:
        self.networks, self.trained = networks(self.workload), steps.trained(self.workload)
        self.optimizer = optax.adam(self.workload.rate, *self.workload.betas, eps=EPSILON)
        self.state = jax.jit(self.initialize)(jax.random.key(0))
        self.jitted = jax.jit(self.step, donate_argnums=0)

    def initialize(self, key: Any) -> State:
        """The state before training, with BYOL's target equal to the online network."""
        params, stats = {}, {}
        for name, net in self.networks.items():
            key, own = jax.random.split(key)
            found = net.init(own, jnp.zeros((1, *net.inputs)))
            params[name] = found["params"]
            stats[name] = {k: v for k, v in found.items() if k != "params"}
        groups = {loss: {n: params[n] for n in names} for loss, names in self.trained.items()}
        optimizers = {loss: self.optimizer.init(weights) for loss, weights in groups.items()}
        for part in (params, stats) if "online" in params else ():
            part["target"] = jax.tree.map(jnp.copy, part["online"])
        totals = {loss: jnp.zeros(()) for loss in self.trained}
        state = {"params": params, "stats": stats, "optimizers": optimizers}
        return state | {"totals": totals, "key": key}

    def train(self, segment: Any) -> dict[str, float]:
        self.state["totals"] = jax.tree.map(jnp.zeros_like, self.state["totals"])
        for batch in segment:
            self.state = self.jitted(self.state, batch)
        return {name: float(v) / len(segment) for name, v in self.state["totals"].items()}

    def step(self, state: State, batch: Any) -> State:
        """One step, from state to state."""
        key, own = jax.random.split(state["key"])
        f = JaxFunctions(self.workload.sizes.get("latent"), iter(jax.random.split(own, 16)))
        nets, losses, optimizers = Networks(self.networks, state), {}, dict(state["optimizers"])
        for name, loss_of in steps.STEPS[self.workload.kind](f, nets, *batch):
            losses[name], optimizers[name] = self.update(nets, name, loss_of, optimizers[name])
        if "online" in self.networks:
            target, online = nets.params["target"], nets.params["online"]
            nets.params["target"] = optax.incremental_update(online, target, 1 - MOMENTUM)
        totals = {name: total + losses[name] for name, total in state["totals"].items()}
        after = {"params": nets.params, "stats": nets.stats, "optimizers": optimizers}
        return after | {"totals": totals, "key": key}

    def update(self, nets: Any, name: str, loss_of: Callable[[], Any], optimizer: Any) -> Any:
        """One update of what a loss trains; the loss, and the state of the optimizer."""
        before = nets.params
        own = {network: before[network] for network in self.trained[name]}

        def loss_and_stats(own: Any) -> Any:
            nets.params = before | own
            return loss_of(), nets.stats

        gradient = jax.value_and_grad(loss_and_stats, has_aux=True)
        (loss, nets.stats), gradients = gradient(own)
        updates, optimizer = self.optimizer.update(gradients, optimizer, own)
        nets.params = before | optax.apply_updates(own, updates)
        return loss, optimizer

    def weights(self) -> dict[str, Iterable[Any]]:
        return {name: jax.tree.leaves(self.state["params"][name]) for name in self.networks}

    def operations(self, segment: Any) -> float | None:
        compiled = self.jitted.lower(self.state, self.given[0]).compile()
        return len(segment) * float(compiled.cost_analysis()["flops"])


class Networks:
    """The networks by name while a step is traced, with their weights and statistics."""

    def __init__(self, modules: dict[str, Any], state: State) -> None:
        self.modules, self.params, self.stats = modules, state["params"], dict(state["stats"])

    def __getitem__(self, name: str) -> Callable[[Any], Any]:
        module = self.modules["online" if name == "target" else name]

        def network(x: Any) -> Any:
            variables = {"params": self.params[name], **self.stats[name]}
            outputs, self.stats[name] = module.apply(variables, x, mutable=["batch_stats"])
            return outputs

        return network


class JaxFunctions(steps.Functions):
    """See `Functions`. `random` are the keys of a step."""

    np = jnp
    constant = staticmethod(contextlib.nullcontext)  # outside of a loss all is constant

    def mse(self, outputs: Any, y: Any) -> Any:
        return jnp.mean((outputs - y) ** 2)

    def uniform(self, images: Any, low: float, high: float) -> Any:
        shape = (len(images), 1, 1)
        return jax.random.uniform(next(self.random), shape, minval=low, maxval=high)

    def normal(self, like: Any, *shape: int) -> Any:
        return jax.random.normal(next(self.random), (len(like), *shape))

    def entropy(self, labels: Any, logits: Any) -> Any:
        return optax.sigmoid_binary_cross_entropy(logits.astype(jnp.float32), labels).mean()

    def nats(self, images: Any, logits: Any) -> Any:
        return optax.sigmoid_binary_cross_entropy(logits, images).sum(-1)

    def cosine(self, one: Any, other: Any) -> Any:
        return optax.losses.cosine_similarity(one, other, epsilon=1e-8)

    def slope(self, network: Any, x: Any) -> Any:
        return jax.grad(lambda x: network(x).sum())(x)

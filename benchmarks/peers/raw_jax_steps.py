"""The steps in JAX with Flax (linen) and Optax: from state to state, all in one jitted function."""

from typing import Any

import jax
import jax.numpy as jnp
import optax

from benchmarks.networks.flax import networks
from benchmarks.peers import raw_jax_losses as losses
from benchmarks.workloads import EPSILON, MOMENTUM, Workload

State = dict[str, Any]


class Step:
    """Networks, optimizer and the step of a workload, from state to state."""

    def __init__(self, workload: Workload) -> None:
        self.workload, self.networks = workload, networks(workload)
        self.optimizer = optax.adam(workload.rate, *workload.betas, eps=EPSILON)

    def apply(self, name: str, params: Any, stats: Any, x: Any) -> Any:
        """The outputs of a network in training and its new statistics."""
        variables = {"params": params, **stats}
        return self.networks[name].apply(variables, x, train=True, mutable=["batch_stats"])

    def descend(self, gradients: Any, params: Any, optimizer: Any) -> Any:
        """New weights and state of the optimizer."""
        updates, optimizer = self.optimizer.update(gradients, optimizer, params)
        return optax.apply_updates(params, updates), optimizer

    def initialize(self, key: Any, batch: Any) -> State:
        """The state before training."""
        params, stats = {}, {}
        for name, x in self.inputs(batch).items():
            key, own = jax.random.split(key)
            found = self.networks[name].init(own, x)
            params[name] = found["params"]
            stats[name] = {k: v for k, v in found.items() if k != "params"}
        state = {"params": params, "stats": stats, "key": key}
        return state | {"optimizer": self.optimizers(params), "totals": self.totals()}

    def optimizers(self, params: Any) -> Any:
        """The state of one optimizer of all weights."""
        return self.optimizer.init(params)

    def totals(self) -> dict[str, Any]:
        """The sums of the losses, which start at zero."""
        return {"loss": jnp.zeros(())}

    def noise(self, count: int) -> Any:
        """Zeros of the shape of a batch of noise."""
        return jnp.zeros((count, self.workload.sizes["latent"]))

    def __call__(self, state: State, batch: Any) -> State:
        """One step of all weights by one optimizer."""
        key, own = jax.random.split(state["key"])
        gradient = jax.value_and_grad(self.loss, has_aux=True)
        (loss, stats), gradients = gradient(state["params"], state["stats"], own, batch)
        params, optimizer = self.descend(gradients, state["params"], state["optimizer"])
        totals = {"loss": state["totals"]["loss"] + loss}
        after = {"params": params, "optimizer": optimizer, "totals": totals}
        return state | after | {"stats": stats, "key": key}


class MLP(Step):
    """A regression."""

    def inputs(self, batch: Any) -> Any:
        """What each network takes."""
        return {"model": batch[0]}

    def loss(self, params: Any, stats: Any, key: Any, batch: Any) -> Any:
        """The mean squared error."""
        outputs, _ = self.apply("model", params["model"], {}, batch[0])
        return jnp.mean((outputs - batch[1]) ** 2), stats


class VAE(Step):
    """An encoder and a decoder."""

    def inputs(self, batch: Any) -> Any:
        """What each network takes."""
        return {"encoder": batch[0], "decoder": self.noise(len(batch[0]))}

    def loss(self, params: Any, stats: Any, key: Any, batch: Any) -> Any:
        """The negative bound on the evidence."""
        codes, _ = self.apply("encoder", params["encoder"], {}, batch[0])
        mean, log_var = jnp.split(codes, 2, axis=-1)
        z = mean + jnp.exp(0.5 * log_var) * jax.random.normal(key, mean.shape)
        logits, _ = self.apply("decoder", params["decoder"], {}, z)
        return losses.elbo(batch[0], mean, log_var, logits), stats


class BYOL(Step):
    """An online network, a predictor, and a target that follows."""

    def inputs(self, batch: Any) -> Any:
        """What each network takes."""
        shape = (len(batch[0]), self.workload.sizes["projection"])
        return {"online": batch[0], "predictor": jnp.zeros(shape)}

    def initialize(self, key: Any, batch: Any) -> State:
        """The state before training, with the target equal to the online network."""
        state = super().initialize(key, batch)
        target = jax.tree.map(jnp.copy, state["params"]["online"])
        state["stats"]["target"] = jax.tree.map(jnp.copy, state["stats"]["online"])
        return state | {"target": target}

    def __call__(self, state: State, batch: Any) -> State:
        """One step, and one of the target."""
        after = super().__call__(state, (batch[0], state["target"]))
        online = after["params"]["online"]
        return after | {"target": optax.incremental_update(online, state["target"], 1 - MOMENTUM)}

    def loss(self, params: Any, stats: Any, key: Any, batch: Any) -> Any:
        """The distance of each view's prediction from what the target sees in the other."""
        predicted, seen = [], []
        for own in jax.random.split(key):
            view = losses.view(own, batch[0])
            projected, online = self.apply("online", params["online"], stats["online"], view)
            outputs, predictor = self.apply(
                "predictor", params["predictor"], stats["predictor"], projected
            )
            target, after = self.apply("online", batch[1], stats["target"], view)
            stats = {"online": online, "predictor": predictor, "target": after}
            predicted.append(outputs)
            seen.append(jax.lax.stop_gradient(target))
        distances = [losses.distance(p, s) for p, s in zip(predicted, seen[::-1], strict=True)]
        return sum(distances), stats

"""A loop in JAX with Flax (linen) and Optax, as an expert writes it.

One jitted step takes the whole state and gives it back in the same memory. It sums the losses up
in the state, so that nothing is read before a segment ends.
"""

from typing import Any

import jax
import jax.numpy as jnp
import optax

from benchmarks.networks.flax import networks
from benchmarks.peers import raw_jax_losses as losses
from benchmarks.program import Program
from benchmarks.workloads import CRITIC_STEPS, EPSILON, MOMENTUM, PENALTY, Workload

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


class GAN(Step):
    """The discriminator on real and fake images, then the generator."""

    judge = "discriminator"
    times = 1  # that it is updated in a step

    def inputs(self, batch: Any) -> Any:
        """What each network takes."""
        return {"generator": self.noise(len(batch[0])), self.judge: batch[0]}

    def optimizers(self, params: Any) -> Any:
        """The state of one optimizer each."""
        return {name: self.optimizer.init(own) for name, own in params.items()}

    def totals(self) -> dict[str, Any]:
        """The sums of the losses, which start at zero."""
        return {name: jnp.zeros(()) for name in self.networks}

    def update(self, state: State, name: str, loss: Any, *args: Any) -> State:
        """One update of one network; `loss` gives its loss and the new statistics of both."""
        gradient = jax.value_and_grad(loss, has_aux=True)
        (value, stats), gradients = gradient(state["params"][name], state, *args)
        own = self.descend(gradients, state["params"][name], state["optimizer"][name])
        times = self.times if name == self.judge else 1
        return state | {
            "params": state["params"] | {name: own[0]},
            "optimizer": state["optimizer"] | {name: own[1]},
            "stats": state["stats"] | stats,
            "totals": state["totals"] | {name: state["totals"][name] + value / times},
        }

    def generate(self, params: Any, state: State, z: Any) -> Any:
        """Fakes, and the new statistics of the generator."""
        return self.apply("generator", params, state["stats"]["generator"], z)

    def __call__(self, state: State, batch: Any) -> State:
        """One step."""
        key, own = jax.random.split(state["key"])
        z = jax.random.normal(own, self.noise(len(batch[0])).shape)
        fakes, _ = self.generate(state["params"]["generator"], state, z)
        state = self.update(state | {"key": key}, self.judge, self.judge_loss, batch[0], fakes)
        return self.update(state, "generator", self.fool_loss, z)

    def judge_loss(self, params: Any, state: State, images: Any, fakes: Any) -> Any:
        """The loss of the discriminator."""
        real, stats = self.apply(self.judge, params, state["stats"][self.judge], images)
        fake, stats = self.apply(self.judge, params, stats, fakes)
        return losses.real(real) + losses.fake(fake), {self.judge: stats}

    def fool_loss(self, params: Any, state: State, z: Any) -> Any:
        """The loss of the generator."""
        fakes, stats = self.generate(params, state, z)
        judge = state["params"][self.judge]
        logits, judged = self.apply(self.judge, judge, state["stats"][self.judge], fakes)
        return losses.real(logits), {"generator": stats, self.judge: judged}


class WGANGP(GAN):
    """The critic several times, then the generator."""

    judge = "critic"
    times = CRITIC_STEPS

    def __call__(self, state: State, batch: Any) -> State:
        """One step."""
        key, own, *keys = jax.random.split(state["key"], 2 + self.times)
        state = state | {"key": key}
        for each in keys:
            state = self.critic_step(state, each, batch[0])
        z = jax.random.normal(own, self.noise(len(batch[0])).shape)
        return self.update(state, "generator", self.fool_loss, z)

    def critic_step(self, state: State, key: Any, images: Any) -> State:
        """One update of the critic, on fakes of its own."""
        key, mix = jax.random.split(key)
        z = jax.random.normal(key, self.noise(len(images)).shape)
        fakes, stats = self.generate(state["params"]["generator"], state, z)
        state = state | {"stats": state["stats"] | {"generator": stats}}
        return self.update(state, "critic", self.critic_loss, images, fakes, mix)

    def critic_loss(self, params: Any, state: State, images: Any, fakes: Any, key: Any) -> Any:
        """Score and penalty."""

        def score(x: Any) -> Any:
            return self.apply("critic", params, {}, x)[0]

        between = losses.between(key, images, fakes)
        slope = jax.grad(lambda x: score(x).sum())(between)
        return score(fakes).mean() - score(images).mean() + PENALTY * losses.penalty(slope), {}

    def fool_loss(self, params: Any, state: State, z: Any) -> Any:
        """The loss of the generator."""
        fakes, stats = self.generate(params, state, z)
        scores, _ = self.apply("critic", state["params"]["critic"], {}, fakes)
        return -scores.mean(), {"generator": stats}


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


STEPS = {"mlp": MLP, "vae": VAE, "gan": GAN, "wgan_gp": WGANGP, "byol": BYOL}


def ahead(batches: Any) -> Any:
    """Moves each batch to the device while the step before it runs."""
    waiting = None
    for batch in batches:
        moved = jax.device_put(batch)
        if waiting is not None:
            yield waiting
        waiting = moved
    yield waiting


class RawJax(Program):
    """The loop around the step."""

    def build(self) -> None:
        """See `Program`."""
        self.step = STEPS[self.workload.kind](self.workload)
        self.state = jax.jit(self.step.initialize)(jax.random.key(0), self.setting.batches[0])
        self.jitted = jax.jit(self.step, donate_argnums=0)

    def train(self, segment: Any) -> dict[str, float]:
        """See `Program`."""
        self.state["totals"] = self.step.totals()
        on_gpu = self.setting.device == "gpu"
        for batch in ahead(segment) if on_gpu else segment:
            self.state = self.jitted(self.state, batch)
        return {name: float(v) / len(segment) for name, v in self.state["totals"].items()}

    def parameters(self) -> dict[str, int]:
        """See `Program`."""
        return {
            name: sum(weight.size for weight in jax.tree.leaves(own))
            for name, own in self.state["params"].items()
        }

    def operations(self, segment: Any) -> float | None:
        """See `Program`: what XLA counts in the compiled step."""
        compiled = self.jitted.lower(self.state, self.setting.batches[0]).compile()
        return len(segment) * float(compiled.cost_analysis()["flops"])

"""The steps of the GANs in JAX with Flax (linen) and Optax."""

from typing import Any

import jax
import jax.numpy as jnp

from benchmarks.peers import raw_jax_losses as losses
from benchmarks.peers.raw_jax_steps import State, Step
from benchmarks.workloads import CRITIC_STEPS, PENALTY


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

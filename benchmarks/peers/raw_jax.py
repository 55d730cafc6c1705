"""A loop in JAX with Flax (linen) and Optax, as an expert writes it.

One jitted step takes the whole state and gives it back in the same memory. It sums the losses up
in the state, so that nothing is read before a segment ends.
"""

from typing import Any

import jax

from benchmarks.peers.raw_jax_gans import GAN, WGANGP
from benchmarks.peers.raw_jax_steps import BYOL, MLP, VAE
from benchmarks.program import Program

STEPS: dict[str, Any] = {"mlp": MLP, "vae": VAE, "gan": GAN, "wgan_gp": WGANGP, "byol": BYOL}


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
        for batch in segment:
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

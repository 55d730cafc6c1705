"""Train steps as Keras' guide to custom training in JAX writes them.

The guide has no step for several optimizers, and `fit` on JAX carries the state of one. The GAN
here gives all weights to one Adam, which is the same as two with the same settings, updated
together. WGAN-GP, which updates one network more often, and BYOL, whose target no optimizer may
touch while its batch norm trains, have no such form and are left out.
"""

from typing import Any

import jax

from benchmarks.peers import guide_models, steps
from benchmarks.workloads import Workload


class Guide(guide_models.Tracked):
    """A model that is called for its losses, with a step that leads from state to state."""

    def __init__(self, workload: Workload) -> None:
        super().__init__(workload, steps.STEPS[workload.kind])

    def call(self, *data: Any) -> dict[str, Any]:
        return {name: loss_of() for name, loss_of in self.step(*data)}

    def train_step(self, state: Any, data: Any) -> Any:
        trainable, non_trainable, optimizer_variables, metrics_variables = state
        losses, gradients, after = {}, [], non_trainable
        for name, names in steps.trained(self.workload).items():
            count = sum(len(getattr(self, n).trainable_variables) for n in names)
            own = slice(len(gradients), len(gradients) + count)
            found = self.differentiate(name, own, trainable, non_trainable, data)
            (losses[name], after), more = found
            gradients += more
        trainable, optimizer_variables = self.optimizer.stateless_apply(
            optimizer_variables, gradients, trainable
        )
        logs, metrics_variables = self.track_stateless(metrics_variables, losses)
        return logs, (trainable, after, optimizer_variables, metrics_variables)

    def differentiate(self, name: str, own: slice, trainable: Any, others: Any, data: Any) -> Any:
        """A loss with the new state, and its gradients in some of the weights."""

        def loss_and_updates(weights: Any) -> Any:
            weights = [*trainable[: own.start], *weights, *trainable[own.stop :]]
            losses, after = self.stateless_call(weights, others, *data)
            return losses[name], after

        return jax.value_and_grad(loss_and_updates, has_aux=True)(trainable[own])

    def track_stateless(self, variables: Any, losses: Any) -> Any:
        """The means of the losses, and the new state of their trackers."""
        logs, after = {}, []
        for tracker in self.trackers:
            own = variables[len(after) : len(after) + len(tracker.variables)]
            own = tracker.stateless_update_state(own, losses[tracker.name])
            logs[tracker.name] = tracker.stateless_result(own)
            after += own
        return logs, after

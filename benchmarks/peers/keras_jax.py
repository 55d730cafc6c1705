"""Train steps as Keras' guide to custom training in JAX writes them.

The guide has no step for several optimizers, and `fit` on JAX carries the state of one. The GAN
here gives all weights to one Adam, which is the same as two with the same settings, updated
together. WGAN-GP, which updates one network more often, and BYOL, whose target no optimizer may
touch while its batch norm trains, have no such form and are left out.
"""

from typing import Any

import jax
from keras import ops

from benchmarks import objectives
from benchmarks.networks.keras import adam
from benchmarks.peers import keras_models


class Guided:
    """The parts of the guide's step that all workloads share."""

    def train_step(self, state: Any, data: Any) -> Any:
        """One step, from state to state."""
        trainable, non_trainable, optimizer_variables, metrics_variables = state
        losses, non_trainable, gradients = self.differentiate(trainable, non_trainable, data)
        trainable, optimizer_variables = self.optimizer.stateless_apply(
            optimizer_variables, gradients, trainable
        )
        logs, metrics_variables = self.track_stateless(metrics_variables, losses)
        return logs, (trainable, non_trainable, optimizer_variables, metrics_variables)

    def differentiate(self, trainable: Any, non_trainable: Any, data: Any) -> Any:
        """The losses, the new state and the gradients."""
        gradient = jax.value_and_grad(self.loss_and_updates, has_aux=True)
        (loss, non_trainable), gradients = gradient(trainable, non_trainable, data)
        return [loss], non_trainable, gradients

    def loss_and_updates(self, trainable: Any, non_trainable: Any, data: Any) -> Any:
        """The loss of the outputs, and the new state."""
        outputs, non_trainable = self.stateless_call(
            trainable, non_trainable, data[0], training=True
        )
        return self.loss_from(data, outputs), non_trainable

    def track_stateless(self, variables: Any, losses: Any) -> Any:
        """The means of the losses, and the new state of their trackers."""
        logs, after = {}, []
        for tracker, loss in zip(self.trackers, losses, strict=True):
            own = variables[len(after) : len(after) + len(tracker.variables)]
            own = tracker.stateless_update_state(own, loss)
            logs[tracker.name] = tracker.stateless_result(own)
            after += own
        return logs, after


class MLP(Guided, keras_models.MLP):
    """See `keras_models`."""

    def loss_from(self, data: Any, outputs: Any) -> Any:
        """The mean squared error."""
        return ops.mean((data[1] - outputs) ** 2)


class VAE(Guided, keras_models.VAE):
    """See `keras_models`."""

    def loss_from(self, data: Any, outputs: Any) -> Any:
        """The negative bound on the evidence."""
        mean, log_var, logits = outputs
        nats = objectives.divergence(mean, log_var) + objectives.reconstruction(data[0], logits)
        return ops.mean(nats)


class GAN(Guided, keras_models.GAN):
    """See `keras_models`."""

    def compile(self, d_optimizer: Any, g_optimizer: Any, loss_fn: Any) -> None:
        """One optimizer, which is all that `fit` on JAX carries the state of."""
        super(keras_models.GAN, self).compile(optimizer=adam(self.workload))
        self.loss_fn = loss_fn

    def call(self, images: Any, training: Any = None) -> Any:
        """What the discriminator makes of real and of fake images."""
        fake = self.generator(self.noise(images), training=training)
        real = self.discriminator(images, training=training)
        return real, self.discriminator(fake, training=training)

    def differentiate(self, trainable: Any, non_trainable: Any, data: Any) -> Any:
        """The gradients of each network's own loss."""
        count = len(self.generator.trainable_variables)
        parts = [trainable[:count], trainable[count:]]
        of_generator = jax.value_and_grad(self.own_loss, argnums=0, has_aux=True)
        of_judge = jax.value_and_grad(self.own_loss, argnums=1, has_aux=True)
        (g_loss, after), g = of_generator(*parts, non_trainable, data, "generator")
        (d_loss, _), d = of_judge(*parts, non_trainable, data, "discriminator")
        return [d_loss, g_loss], after, [*g, *d]

    def own_loss(self, g: Any, d: Any, non_trainable: Any, data: Any, name: str) -> Any:
        """The loss of one network, and the new state."""
        (real, fake), non_trainable = self.stateless_call(
            [*g, *d], non_trainable, data[0], training=True
        )
        fool = self.loss_fn(ops.ones_like(fake), fake)
        tell = self.loss_fn(ops.ones_like(real), real) + self.loss_fn(ops.zeros_like(fake), fake)
        return fool if name == "generator" else tell, non_trainable


MODELS = {"mlp": MLP, "vae": VAE, "gan": GAN}

"""Train steps as Keras' guide to custom training in PyTorch writes them.

The guide zeroes the gradients of the whole model, calls `backward`, collects the gradients of the
weights, and applies them under `no_grad`. Its GAN draws noise and generates anew for each of the
two updates, and lets the generator's update compute gradients of the discriminator too.
"""

from typing import Any

import torch

from benchmarks import objectives
from benchmarks.peers import keras_models
from benchmarks.workloads import CRITIC_STEPS, MOMENTUM, PENALTY


def update(model: Any, loss: Any, weights: list[Any], optimizer: Any) -> None:
    """One update, as the guide writes it."""
    loss.backward()
    gradients = [weight.value.grad for weight in weights]
    with torch.no_grad():
        optimizer.apply(gradients, weights)


class MLP(keras_models.MLP):
    """See `keras_models`."""

    def train_step(self, data: Any) -> Any:
        """One step."""
        x, y = data
        self.zero_grad()
        loss = self.loss_of(x, y)
        update(self, loss, self.trainable_weights, self.optimizer)
        return self.track(loss)


class VAE(keras_models.VAE):
    """See `keras_models`."""

    def train_step(self, data: Any) -> Any:
        """One step."""
        self.zero_grad()
        loss = self.loss_of(data[0])
        update(self, loss, self.trainable_weights, self.optimizer)
        return self.track(loss)


class GAN(keras_models.GAN):
    """See `keras_models`."""

    def train_step(self, data: Any) -> Any:
        """The discriminator, then the generator."""
        with torch.no_grad():
            fake = self.generator(self.noise(data[0]), training=True)
        self.zero_grad()
        d_loss = self.judge_loss(data[0], fake)
        update(self, d_loss, self.discriminator.trainable_weights, self.d_optimizer)

        self.zero_grad()
        g_loss = self.fool_loss(self.noise(data[0]))
        update(self, g_loss, self.generator.trainable_weights, self.g_optimizer)
        return self.track(d_loss, g_loss)


class WGANGP(keras_models.WGANGP):
    """See `keras_models`."""

    def train_step(self, data: Any) -> Any:
        """The critic several times, then the generator."""
        for _ in range(CRITIC_STEPS):
            self.zero_grad()
            d_loss = self.critic_loss(data[0])
            update(self, d_loss, self.critic.trainable_weights, self.d_optimizer)

        self.zero_grad()
        g_loss = self.fool_loss(self.noise(data[0]))
        update(self, g_loss, self.generator.trainable_weights, self.g_optimizer)
        return self.track(d_loss, g_loss)

    def critic_loss(self, images: Any) -> Any:
        """Score and penalty."""
        with torch.no_grad():
            fake = self.generator(self.noise(images), training=True)
        between = self.between(images, fake).requires_grad_()
        scores = self.critic(between, training=True)
        [slope] = torch.autograd.grad(scores.sum(), between, create_graph=True)
        return self.judge_loss(images, fake) + PENALTY * objectives.penalty(slope)


class BYOL(keras_models.BYOL):
    """See `keras_models`."""

    def train_step(self, data: Any) -> Any:
        """One update, and one of the target."""
        views = self.views(data[0])
        with torch.no_grad():
            seen = [self.target(view, training=True) for view in views]
        self.zero_grad()
        loss = self.loss_between(self.predictions(views), seen)
        update(self, loss, self.learned(), self.optimizer)
        with torch.no_grad():
            for target, source in zip(
                self.target.trainable_weights, self.online.trainable_weights, strict=True
            ):
                target.assign(MOMENTUM * target + (1 - MOMENTUM) * source)
        return self.track(loss)


MODELS = {"mlp": MLP, "vae": VAE, "gan": GAN, "wgan_gp": WGANGP, "byol": BYOL}

"""Train steps as Keras' guide to custom training in TensorFlow writes them: a tape an update."""

from typing import Any

import tensorflow as tf

from benchmarks import objectives
from benchmarks.peers import keras_models
from benchmarks.workloads import CRITIC_STEPS, MOMENTUM, PENALTY


class MLP(keras_models.MLP):
    """See `keras_models`."""

    def train_step(self, data: Any) -> Any:
        """One step."""
        x, y = data
        with tf.GradientTape() as tape:
            loss = self.loss_of(x, y)
        gradients = tape.gradient(loss, self.trainable_weights)
        self.optimizer.apply_gradients(zip(gradients, self.trainable_weights, strict=True))
        return self.track(loss)


class VAE(keras_models.VAE):
    """See `keras_models`."""

    def train_step(self, data: Any) -> Any:
        """One step."""
        with tf.GradientTape() as tape:
            loss = self.loss_of(data[0])
        gradients = tape.gradient(loss, self.trainable_weights)
        self.optimizer.apply_gradients(zip(gradients, self.trainable_weights, strict=True))
        return self.track(loss)


class GAN(keras_models.GAN):
    """See `keras_models`."""

    def train_step(self, data: Any) -> Any:
        """The discriminator, then the generator, each from a batch of noise of its own."""
        fake = self.generator(self.noise(data[0]), training=True)
        with tf.GradientTape() as tape:
            d_loss = self.judge_loss(data[0], fake)
        weights = self.discriminator.trainable_weights
        gradients = tape.gradient(d_loss, weights)
        self.d_optimizer.apply_gradients(zip(gradients, weights, strict=True))
        return self.track(d_loss, self.generator_step(data[0]))

    def generator_step(self, images: Any) -> Any:
        """One update of the generator; its loss."""
        z = self.noise(images)
        with tf.GradientTape() as tape:
            g_loss = self.fool_loss(z)
        weights = self.generator.trainable_weights
        gradients = tape.gradient(g_loss, weights)
        self.g_optimizer.apply_gradients(zip(gradients, weights, strict=True))
        return g_loss


class WGANGP(keras_models.WGANGP):
    """See `keras_models`."""

    generator_step = GAN.generator_step

    def train_step(self, data: Any) -> Any:
        """The critic several times, then the generator."""
        for _ in range(CRITIC_STEPS):
            d_loss = self.critic_step(data[0])
        return self.track(d_loss, self.generator_step(data[0]))

    def critic_step(self, images: Any) -> Any:
        """One update of the critic; its loss."""
        fake = self.generator(self.noise(images), training=True)
        between = self.between(images, fake)
        with tf.GradientTape() as tape:
            d_loss = self.judge_loss(images, fake) + PENALTY * self.penalty(between)
        weights = self.critic.trainable_weights
        gradients = tape.gradient(d_loss, weights)
        self.d_optimizer.apply_gradients(zip(gradients, weights, strict=True))
        return d_loss

    def penalty(self, between: Any) -> Any:
        """The penalty on the critic's slopes."""
        with tf.GradientTape() as tape:
            tape.watch(between)
            scores = self.critic(between, training=True)
        return objectives.penalty(tape.gradient(scores, between))


class BYOL(keras_models.BYOL):
    """See `keras_models`."""

    def train_step(self, data: Any) -> Any:
        """One update, and one of the target."""
        views = self.views(data[0])
        seen = [self.target(view, training=True) for view in views]
        with tf.GradientTape() as tape:
            loss = self.loss_between(self.predictions(views), seen)
        gradients = tape.gradient(loss, self.learned())
        self.optimizer.apply_gradients(zip(gradients, self.learned(), strict=True))
        for target, source in zip(
            self.target.trainable_weights, self.online.trainable_weights, strict=True
        ):
            target.assign(MOMENTUM * target + (1 - MOMENTUM) * source)
        return self.track(loss)


MODELS = {"mlp": MLP, "vae": VAE, "gan": GAN, "wgan_gp": WGANGP, "byol": BYOL}

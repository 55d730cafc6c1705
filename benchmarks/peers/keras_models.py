"""The models of Keras' guides, without their train steps, which differ by backend."""

from typing import Any

import keras
from keras import ops

from benchmarks import objectives
from benchmarks.networks.keras import adam, networks
from benchmarks.workloads import Workload


class Tracked(keras.Model):
    """A model that tracks the mean of each of its losses, as the guides do."""

    tracked: tuple[str, ...] = ("loss",)

    def __init__(self, workload: Workload) -> None:
        super().__init__()
        self.workload = workload
        for name, network in networks(workload).items():
            setattr(self, name, network)
        self.trackers = [keras.metrics.Mean(name=name) for name in self.tracked]
        self.seed = keras.random.SeedGenerator(0)
        self.built = True  # its networks are
        self.prepare()

    def prepare(self) -> None:
        """Makes what else there is, and compiles."""
        self.compile(optimizer=adam(self.workload))

    @property
    def metrics(self) -> list[Any]:
        """The trackers, which `fit` resets at the start of each epoch."""
        return self.trackers

    def track(self, *losses: Any) -> dict[str, Any]:
        """Updates the trackers; what a train step returns."""
        for tracker, loss in zip(self.trackers, losses, strict=True):
            tracker.update_state(loss)
        return {tracker.name: tracker.result() for tracker in self.trackers}

    def noise(self, images: Any) -> Any:
        """A batch of noise."""
        shape = (ops.shape(images)[0], self.workload.sizes["latent"])
        return keras.random.normal(shape, seed=self.seed)


class MLP(Tracked):
    """A regression."""

    def call(self, x: Any, training: Any = None) -> Any:
        """The predictions."""
        return self.model(x, training=training)

    def loss_of(self, x: Any, y: Any) -> Any:
        """The mean squared error."""
        return ops.mean(keras.losses.mean_squared_error(y, self(x, training=True)))


class VAE(Tracked):
    """An encoder and a decoder, one optimizer."""

    def call(self, images: Any, training: Any = None) -> Any:
        """Posterior and reconstruction."""
        mean, log_var = ops.split(self.encoder(images, training=training), 2, axis=-1)
        z = objectives.sample(mean, log_var, self.seed)
        return mean, log_var, self.decoder(z, training=training)

    def loss_of(self, images: Any) -> Any:
        """The negative bound on the evidence."""
        mean, log_var, logits = self(images, training=True)
        nats = objectives.divergence(mean, log_var) + objectives.reconstruction(images, logits)
        return ops.mean(nats)


class GAN(Tracked):
    """A generator and a discriminator, two optimizers."""

    tracked = ("discriminator", "generator")

    def prepare(self) -> None:
        """See `Tracked`."""
        self.compile(adam(self.workload), adam(self.workload), objectives.bce)

    def compile(self, d_optimizer: Any, g_optimizer: Any, loss_fn: Any) -> None:
        """Takes both optimizers, as in the guide."""
        super().compile()
        self.d_optimizer, self.g_optimizer, self.loss_fn = d_optimizer, g_optimizer, loss_fn

    def judge_loss(self, images: Any, fake: Any) -> Any:
        """The loss of the discriminator."""
        real, fake = (
            self.discriminator(images, training=True),
            self.discriminator(fake, training=True),
        )
        return self.loss_fn(ops.ones_like(real), real) + self.loss_fn(ops.zeros_like(fake), fake)

    def fool_loss(self, z: Any) -> Any:
        """The loss of the generator."""
        judged = self.discriminator(self.generator(z, training=True), training=True)
        return self.loss_fn(ops.ones_like(judged), judged)


class WGANGP(GAN):
    """A generator and a critic, two optimizers."""

    tracked = ("critic", "generator")

    def judge_loss(self, images: Any, fake: Any) -> Any:
        """The critic's score, without its penalty."""
        score = ops.mean(self.critic(fake, training=True))
        return score - ops.mean(self.critic(images, training=True))

    def fool_loss(self, z: Any) -> Any:
        """The loss of the generator."""
        return -ops.mean(self.critic(self.generator(z, training=True), training=True))

    def between(self, images: Any, fake: Any) -> Any:
        """A point on the line from each real image to a fake one."""
        shape = (ops.shape(images)[0], 1, 1, 1)
        weight = keras.random.uniform(shape, seed=self.seed)
        return weight * images + (1 - weight) * fake


class BYOL(Tracked):
    """An online network, a predictor, and a target that follows."""

    def prepare(self) -> None:
        """See `Tracked`."""
        self.target = keras.models.clone_model(self.online)
        self.target.set_weights(self.online.get_weights())
        super().prepare()

    def learned(self) -> list[Any]:
        """The weights that the optimizer trains."""
        return self.online.trainable_weights + self.predictor.trainable_weights

    def predictions(self, views: list[Any]) -> list[Any]:
        """What the online side predicts of each view."""
        return [self.predictor(self.online(v, training=True), training=True) for v in views]

    def views(self, images: Any) -> list[Any]:
        """Two views of each image."""
        return [objectives.view(images, self.seed) for _ in range(2)]

    def loss_between(self, predicted: list[Any], seen: list[Any]) -> Any:
        """The distance of each view's prediction from what the target sees in the other."""
        pairs = zip(predicted, reversed(seen), strict=True)
        return ops.mean(sum(objectives.distance(p, s) for p, s in pairs))

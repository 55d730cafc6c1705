"""The workloads in mlsystem: the same source on every backend."""

from typing import Any

import keras
from keras import ops

import mlsystem as ml
from benchmarks import objectives
from benchmarks.networks.keras import adam, dense, networks
from benchmarks.objectives import bce
from benchmarks.workloads import CRITIC_STEPS, MOMENTUM, PENALTY, Workload


class Encoder(ml.MLModel):
    """Answers for the divergence."""

    def loss(self, x: Any, y: Any, outputs: Any) -> Any:
        return objectives.divergence(outputs["mean"], outputs["log_var"])


class Decoder(ml.MLModel):
    """Answers for the reconstruction."""

    def loss(self, x: Any, y: Any, outputs: Any) -> Any:
        return objectives.reconstruction(x, outputs["logits"])


class VAE(ml.MLSystem):
    """Two models that follow the sum of their losses."""

    def __init__(self, workload: Workload) -> None:
        super().__init__()
        nets = networks(workload)
        self.encoder = Encoder(nets["encoder"], optimizer=adam(workload))
        self.decoder = Decoder(nets["decoder"], optimizer=adam(workload))
        self.seed = keras.random.SeedGenerator(0)

    def forward(self, images: Any) -> Any:
        mean, log_var = ops.split(self.encoder(images), 2, axis=-1)
        logits = self.decoder(objectives.sample(mean, log_var, self.seed))
        return {"mean": mean, "log_var": log_var, "logits": logits}


class Generator(ml.MLModel):
    """Wants its fakes to be taken for real."""

    def loss(self, x: Any, y: Any, outputs: Any) -> Any:
        return bce(ops.ones_like(outputs["fake"]), outputs["fake"])


class Discriminator(ml.MLModel):
    """Tells real from fake."""

    def loss(self, x: Any, y: Any, outputs: Any) -> Any:
        real, fake = outputs["real"], outputs["fake"]
        return bce(ops.ones_like(real), real) + bce(ops.zeros_like(fake), fake)


class GAN(ml.MLSystem):
    """Two models that each follow their own loss."""

    routing = "own"

    def __init__(self, workload: Workload) -> None:
        super().__init__()
        nets = networks(workload)
        self.latent = workload.sizes["latent"]
        self.generator = Generator(nets["generator"], optimizer=adam(workload))
        self.discriminator = Discriminator(nets["discriminator"], optimizer=adam(workload))
        self.seed = keras.random.SeedGenerator(0)

    def forward(self, images: Any, training: Any = None) -> Any:
        z = keras.random.normal((ops.shape(images)[0], self.latent), seed=self.seed)
        fake = self.generator(z, training=training)
        return {
            "real": self.discriminator(images, training=training),
            "fake": self.discriminator(fake, training=training),
        }


class Critic(ml.MLModel):
    """Scores real above fake, with slopes near one between them."""

    def loss(self, x: Any, y: Any, outputs: Any) -> Any:
        slope = ml.grad(self)(outputs["between"])
        score = ops.mean(outputs["fake"]) - ops.mean(outputs["real"])
        return score + PENALTY * objectives.penalty(slope)


class Faker(ml.MLModel):
    """Wants its fakes to be scored high."""

    def loss(self, x: Any, y: Any, outputs: Any) -> Any:
        return -ops.mean(outputs["fake"])


class WGANGP(ml.MLSystem):
    """Several steps of the critic to one of the generator, on each batch."""

    routing = "own"
    phases = (("critic",),) * CRITIC_STEPS + (("generator",),)

    def __init__(self, workload: Workload) -> None:
        super().__init__()
        nets = networks(workload)
        self.latent = workload.sizes["latent"]
        self.critic = Critic(nets["critic"], optimizer=adam(workload))
        self.generator = Faker(nets["generator"], optimizer=adam(workload))
        self.seed = keras.random.SeedGenerator(0)

    def forward(self, images: Any, training: Any = None) -> Any:
        count = ops.shape(images)[0]
        noise = keras.random.normal((count, self.latent), seed=self.seed)
        fake = self.generator(noise, training=training)
        weight = keras.random.uniform((count, 1, 1, 1), seed=self.seed)
        return {
            "real": self.critic(images, training=training),
            "fake": self.critic(fake, training=training),
            "between": weight * images + (1 - weight) * fake,
        }


class BYOL(ml.MLSystem):
    """A network that learns to predict what its moving average sees in another view."""

    def __init__(self, workload: Workload) -> None:
        super().__init__()
        nets = networks(workload)
        self.online, self.predictor = nets["online"], nets["predictor"]
        self.target = ml.EMA(self.online, MOMENTUM)
        self.seed = keras.random.SeedGenerator(0)
        self.workload = workload

    def configure_optimizers(self) -> Any:
        return {name: adam(self.workload) for name in ("online", "predictor")}

    def forward(self, images: Any, training: Any = None) -> Any:
        views = [objectives.view(images, self.seed) for _ in range(2)]
        return {
            "predicted": [self.predictor(self.online(v, training=training)) for v in views],
            "seen": [self.target(v, training=training) for v in views],
        }

    def compute_losses(self, x: Any, y: Any, outputs: Any) -> Any:
        (a, b), (seen_a, seen_b) = outputs["predicted"], outputs["seen"]
        return {"byol": objectives.distance(a, seen_b) + objectives.distance(b, seen_a)}


class Many(ml.MLSystem):
    """Small regressors side by side, each with a loss of its own."""

    def __init__(self, workload: Workload, models: int, routing: str) -> None:
        super().__init__()
        self.routing = routing
        self.regressors = [
            ml.MLModel(dense(**workload.sizes), loss="mse", optimizer=adam(workload))
            for _ in range(models)
        ]

    def forward(self, x: Any) -> Any:
        return {model.key: model(x) for model in self.regressors}


def mlp(workload: Workload) -> Any:
    """One model, trained alone."""
    return ml.MLModel(networks(workload)["model"], loss="mse", optimizer=adam(workload))


SYSTEMS: dict[str, Any] = {
    "mlp": mlp,
    "vae": VAE,
    "gan": GAN,
    "wgan_gp": WGANGP,
    "byol": BYOL,
    "many": Many,
}

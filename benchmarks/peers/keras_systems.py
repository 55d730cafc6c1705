"""The workloads in mlsystem: the same source on every backend."""

from collections.abc import Mapping
from typing import Any

import keras
from keras import ops

import mlsystem as ml
from benchmarks.networks.keras import adam, build, networks
from benchmarks.networks.layers import dense
from benchmarks.peers.keras_functions import KerasFunctions
from benchmarks.workloads import CRITIC_STEPS, MOMENTUM, PENALTY, Workload

f = KerasFunctions()


class Encoder(ml.MLModel):
    """Answers for the divergence."""

    def loss(self, x: Any, y: Any, outputs: Any) -> Any:
        return f.divergence(outputs["mean"], outputs["log_var"])


class Decoder(ml.MLModel):
    """Answers for the reconstruction."""

    def loss(self, x: Any, y: Any, outputs: Any) -> Any:
        return f.nats(x, outputs["logits"])


class Generator(ml.MLModel):
    """Wants its fakes to be taken for real."""

    def loss(self, x: Any, y: Any, outputs: Any) -> Any:
        return f.fool(outputs["fake"])


class Discriminator(ml.MLModel):
    """Tells real from fake."""

    def loss(self, x: Any, y: Any, outputs: Any) -> Any:
        return f.tell(outputs["real"], outputs["fake"])


class Faker(ml.MLModel):
    """Wants its fakes to be scored high."""

    def loss(self, x: Any, y: Any, outputs: Any) -> Any:
        return -ops.mean(outputs["fake"])


class Critic(ml.MLModel):
    """Scores real above fake, with slopes near one between them."""

    def loss(self, x: Any, y: Any, outputs: Any) -> Any:
        slope = ml.grad(self)(outputs["between"])
        score = ops.mean(outputs["fake"]) - ops.mean(outputs["real"])
        return score + PENALTY * f.penalty(slope)


class System(ml.MLSystem):
    """Models of the networks of a workload, and random numbers."""

    kinds: Mapping[str, Any]

    def __init__(self, workload: Workload, nets: dict[str, Any] | None = None) -> None:
        super().__init__()
        for name, net in (nets or networks(workload)).items():
            setattr(self, name, self.kinds[name](net, optimizer=adam(workload)))
        self.seed = keras.random.SeedGenerator(0)
        self.f = KerasFunctions(workload.sizes.get("latent"), self.seed)


class VAE(System):
    """Two models that follow the sum of their losses."""

    kinds: Mapping[str, Any] = {"encoder": Encoder, "decoder": Decoder}

    def forward(self, images: Any) -> Any:
        mean, log_var = self.f.posterior(self.encoder(images))
        logits = self.decoder(self.f.sample(mean, log_var))
        return {"mean": mean, "log_var": log_var, "logits": logits}


class GAN(System):
    """Two models that each follow their own loss."""

    kinds: Mapping[str, Any] = {"generator": Generator, "discriminator": Discriminator}
    routing = "own"

    def forward(self, images: Any, training: Any = None) -> Any:
        fake = self.generator(self.f.noise(images), training=training)
        return {
            "real": self.discriminator(images, training=training),
            "fake": self.discriminator(fake, training=training),
        }


class WGANGP(System):
    """Several steps of the critic to one of the generator, on each batch."""

    kinds: Mapping[str, Any] = {"generator": Faker, "critic": Critic}
    routing = "own"
    phases = (("critic",),) * CRITIC_STEPS + (("generator",),)

    def forward(self, images: Any, training: Any = None) -> Any:
        fake = self.generator(self.f.noise(images), training=training)
        return {
            "real": self.critic(images, training=training),
            "fake": self.critic(fake, training=training),
            "between": self.f.mixed(images, fake),
        }


class BYOL(System):
    """A network that learns to predict what its moving average sees in another view."""

    kinds: Mapping[str, Any] = {"online": ml.MLModel, "predictor": ml.MLModel}

    def __init__(self, workload: Workload) -> None:
        super().__init__(workload)
        self.target = ml.EMA(self.online, MOMENTUM)

    def forward(self, images: Any, training: Any = None) -> Any:
        views = [self.f.view(images) for _ in range(2)]
        return {
            "predicted": [self.predictor(self.online(v, training=training)) for v in views],
            "seen": [self.target(v, training=training) for v in views],
        }

    def compute_losses(self, x: Any, y: Any, outputs: Any) -> Any:
        return {"byol": f.distance(outputs["predicted"], outputs["seen"])}


class Many(ml.MLSystem):
    """Small regressors side by side, each with a loss of its own."""

    def __init__(self, workload: Workload, models: int, routing: str) -> None:
        super().__init__()
        self.routing = routing
        nets = [build(dense(**workload.sizes)) for _ in range(models)]
        self.regressors = [ml.MLModel(net, loss="mse", optimizer=adam(workload)) for net in nets]

    def forward(self, x: Any) -> Any:
        return {model.key: model(x) for model in self.regressors}


def mlp(workload: Workload) -> Any:
    """One model, trained alone."""
    return ml.MLModel(networks(workload)["model"], loss="mse", optimizer=adam(workload))


SYSTEMS: dict[str, Any] = {"mlp": mlp, "vae": VAE, "gan": GAN}
SYSTEMS |= {"wgan_gp": WGANGP, "byol": BYOL, "many": Many}

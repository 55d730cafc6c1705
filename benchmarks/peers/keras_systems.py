"""The workloads in mlsystem: the same source on every backend."""

from typing import Any

import keras
from keras import ops

import mlsystem as ml
from benchmarks.networks.keras import adam, networks
from benchmarks.peers.keras_fit import KerasFunctions
from benchmarks.workloads import CRITIC_STEPS, MOMENTUM, PENALTY, Workload

f = KerasFunctions()


class System(ml.MLSystem):
    """Models of the networks of a workload, and random numbers."""

    def __init__(self, workload: Workload, **schedules: Any) -> None:
        super().__init__()
        for name, net in networks(workload).items():
            setattr(self, name, ml.MLModel(net, optimizer=adam(workload)))
        for name, schedule in schedules.items():
            setattr(self, name, schedule)
        self.seed = keras.random.SeedGenerator(0)
        self.f = KerasFunctions(workload.sizes.get("latent"), self.seed)


class VAE(System):
    """Two models that follow the sum of their losses."""

    def forward(self, images: Any) -> Any:
        mean, log_var = self.f.posterior(self.encoder(images))
        logits = self.decoder(self.f.sample(mean, log_var))
        return {"mean": mean, "log_var": log_var, "logits": logits}

    def compute_losses(self, x: Any, y: Any, outputs: Any) -> Any:
        divergence = f.divergence(outputs["mean"], outputs["log_var"])
        return {"encoder": divergence, "decoder": f.nats(x, outputs["logits"])}


class GAN(System):
    """Two models that each follow their own loss."""

    routing = "own"

    def forward(self, images: Any, training: Any = None) -> Any:
        real = self.discriminator(images, training=training)
        fake = self.generator(self.f.noise(images), training=training)
        return {"real": real, "fake": self.discriminator(fake, training=training)}

    def compute_losses(self, x: Any, y: Any, outputs: Any) -> Any:
        against = f.tell(outputs["real"], outputs["fake"])
        return {"generator": f.fool(outputs["fake"]), "discriminator": against}


class WGANGP(System):
    """Several steps of the critic to one of the generator, on each batch."""

    routing = "own"
    phases = (("critic",),) * CRITIC_STEPS + (("generator",),)

    def forward(self, images: Any, training: Any = None) -> Any:
        real = self.critic(images, training=training)
        fake = self.generator(self.f.noise(images), training=training)
        between = self.f.mixed(images, fake)
        return {"real": real, "fake": self.critic(fake, training=training), "between": between}

    def compute_losses(self, x: Any, y: Any, outputs: Any) -> Any:
        fake = ops.mean(outputs["fake"])
        slope = ml.grad(self.critic)(outputs["between"])
        against = fake - ops.mean(outputs["real"]) + PENALTY * f.penalty(slope)
        return {"critic": against, "generator": -fake}


class BYOL(System):
    """A network that learns to predict what its moving average sees in another view."""

    def __init__(self, workload: Workload) -> None:
        super().__init__(workload)
        self.target = ml.EMA(self.online, MOMENTUM)

    def forward(self, images: Any, training: Any = None) -> Any:
        views = [self.f.view(images) for _ in range(2)]
        predicted = [self.predictor(self.online(view, training=training)) for view in views]
        return {"predicted": predicted, "seen": [self.target(v, training=training) for v in views]}

    def compute_losses(self, x: Any, y: Any, outputs: Any) -> Any:
        return {"byol": f.distance(outputs["predicted"], outputs["seen"])}


class Many(ml.MLSystem):
    """Small regressors side by side, each with a loss of its own."""

    def __init__(self, workload: Workload, models: int, routing: str) -> None:
        super().__init__()
        self.routing = routing
        nets = [networks(workload)["regressor"] for _ in range(models)]
        self.regressors = [ml.MLModel(net, loss="mse", optimizer=adam(workload)) for net in nets]

    def forward(self, x: Any) -> Any:
        return {model.key: model(x) for model in self.regressors}

    @property
    def regressor(self) -> Any:
        return self.regressors[0]


def mlp(workload: Workload) -> Any:
    """One model, trained alone."""
    return ml.MLModel(networks(workload)["model"], loss="mse", optimizer=adam(workload))


SYSTEMS: dict[str, Any] = {"mlp": mlp, "vae": VAE, "gan": GAN, "dense_gan": GAN}
SYSTEMS |= {"wgan_gp": WGANGP, "byol": BYOL, "many": Many}

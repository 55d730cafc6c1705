"""What is trained: sizes, batch, optimizer, and how many steps a segment has."""

from dataclasses import dataclass, field
from typing import Any


@dataclass(frozen=True)
class Workload:
    """One workload. Every program that runs it reads all it needs from here."""

    name: str  # on the command line
    kind: str  # of networks and losses: mlp, vae, gan, dense_gan, wgan_gp, byol or many
    batch: int  # samples in a batch
    steps: dict[str, int]  # in a segment, on CPU and on GPU
    rate: float = 1e-3  # learning rate of Adam
    betas: tuple[float, float] = (0.9, 0.999)  # decay rates of Adam
    sizes: dict[str, Any] = field(default_factory=dict)  # of the networks
    pool: int = 32  # distinct batches; a longer segment starts over
    bfloat16: bool = False  # whether networks compute in bfloat16, with float32 weights
    source: str = ""  # what `fit` reads the data from, where that is what is measured


EPSILON = 1e-7
MOMENTUM = 0.99  # of the target network of BYOL
CRITIC_STEPS = 5  # of WGAN-GP, to one of the generator
PENALTY = 10.0
EVERY = 5  # batches to an update of the generator, in `update_every`

IMAGE = (28, 28, 1)
SMALL = {"image": IMAGE, "latent": 64, "start": 7, "up": (64, 32), "down": (32, 64)}
LARGE = {"image": (64, 64, 3), "latent": 128, "start": 4}
LARGE |= {"up": (512, 256, 128, 64), "down": (64, 128, 256, 512)}
_MLP = {"inputs": 32, "hidden": (64, 64), "outputs": 8}
_VAE = {"inputs": 784, "hidden": 400, "latent": 20}
_BYOL = {"image": IMAGE, "down": (32, 64), "features": 128, "projection": 64}
_MANY = {"inputs": 16, "hidden": (32,), "outputs": 1}
_DENSE_GAN = {"image": (784,), "latent": 64, "hidden": (256, 256)}
_GAN_ADAM, _WGAN_ADAM = (2e-4, (0.5, 0.999)), (1e-4, (0.0, 0.9))
_SHORT = {"cpu": 320, "gpu": 320}  # steps that are short
_SOURCE = {"cpu": 640, "gpu": 640}
SOURCES = ["arrays", "mldata", "transform", "generator", "streams", "streams_tf_data", "tf_data"]
SOURCES += ["data_loader", "grain"]

_ALL = [
    Workload("mlp", "mlp", 32, _SHORT, sizes=_MLP),
    Workload("vae", "vae", 128, {"cpu": 160, "gpu": 320}, sizes=_VAE),
    Workload("dcgan", "gan", 64, {"cpu": 36, "gpu": 160}, *_GAN_ADAM, SMALL),
    Workload("wgan_gp", "wgan_gp", 32, {"cpu": 8, "gpu": 80}, *_WGAN_ADAM, SMALL),
    Workload("byol", "byol", 64, {"cpu": 36, "gpu": 160}, sizes=_BYOL),
    Workload("many", "many", 32, {"cpu": 256, "gpu": 256}, sizes=_MANY),
    Workload("dcgan64", "gan", 256, {"cpu": 8, "gpu": 64}, *_GAN_ADAM, LARGE, 8, bfloat16=True),
    # The learning rate is too small to change much: a discriminator that has won makes gradients
    # so small that a CPU is slow with them.
    # Of 322 steps, 305 are timed, a multiple of `EVERY`.
    Workload("update_every", "dense_gan", 64, {"cpu": 322, "gpu": 322}, 1e-7, sizes=_DENSE_GAN),
    *(Workload(name, "mlp", 32, _SOURCE, sizes=_MLP, source=name) for name in SOURCES),
]
WORKLOADS = {workload.name: workload for workload in _ALL}
SETS = {
    "cpu": ["mlp", "vae", "dcgan", "wgan_gp", "byol", "many"],
    "gpu": ["mlp", "dcgan", "dcgan64"],
    "data_path": SOURCES,
}

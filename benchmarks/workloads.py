"""What is trained: sizes, batch, optimizer, and how many steps a segment has."""

from dataclasses import dataclass, field
from typing import Any


@dataclass(frozen=True)
class Workload:
    """One workload; every program that runs it reads all it needs from here.

    Attributes:
        name: the name on the command line.
        kind: which networks and losses it has: `mlp`, `vae`, `gan`, `wgan_gp`, `byol`, `many`.
        batch: samples in a batch.
        steps: training steps in a segment, on CPU and on GPU.
        rate: learning rate of Adam.
        betas: decay rates of Adam.
        sizes: of the networks.
        pool: number of distinct batches; a longer segment goes round.
        bfloat16: whether the networks compute in bfloat16, with float32 weights.
    """

    name: str
    kind: str
    batch: int
    steps: dict[str, int]
    rate: float = 1e-3
    betas: tuple[float, float] = (0.9, 0.999)
    sizes: dict[str, Any] = field(default_factory=dict)
    pool: int = 32
    bfloat16: bool = False

    @property
    def networks(self) -> tuple[str, ...]:
        """The names of the networks that learn."""
        return _NETWORKS[self.kind]


_NETWORKS = {
    "mlp": ("model",),
    "vae": ("encoder", "decoder"),
    "gan": ("generator", "discriminator"),
    "wgan_gp": ("generator", "critic"),
    "byol": ("online", "predictor"),
    "many": ("regressor",),
}
EPSILON = 1e-7
MOMENTUM = 0.99  # of the target network of BYOL
CRITIC_STEPS = 5  # of WGAN-GP, to one of the generator
PENALTY = 10.0

SMALL = {"image": (28, 28, 1), "latent": 64, "start": 7, "up": (64, 32), "down": (32, 64)}
LARGE = {
    "image": (64, 64, 3),
    "latent": 128,
    "start": 4,
    "up": (512, 256, 128, 64),
    "down": (64, 128, 256, 512),
}

_ALL = [
    Workload(
        "mlp",
        "mlp",
        batch=32,
        steps={"cpu": 320, "gpu": 320},
        sizes={"inputs": 32, "hidden": (64, 64), "outputs": 8},
    ),
    Workload(
        "vae",
        "vae",
        batch=128,
        steps={"cpu": 160, "gpu": 320},
        sizes={"inputs": 784, "hidden": 400, "latent": 20},
    ),
    Workload(
        "dcgan",
        "gan",
        batch=64,
        steps={"cpu": 36, "gpu": 160},
        rate=2e-4,
        betas=(0.5, 0.999),
        sizes=SMALL,
    ),
    Workload(
        "wgan_gp",
        "wgan_gp",
        batch=32,
        steps={"cpu": 8, "gpu": 80},
        rate=1e-4,
        betas=(0.0, 0.9),
        sizes=SMALL,
    ),
    Workload(
        "byol",
        "byol",
        batch=64,
        steps={"cpu": 36, "gpu": 160},
        sizes={"image": (28, 28, 1), "down": (32, 64), "features": 128, "projection": 64},
    ),
    Workload(
        "many",
        "many",
        batch=32,
        steps={"cpu": 256, "gpu": 256},
        sizes={"inputs": 16, "hidden": (32,), "outputs": 1},
    ),
    Workload(
        "dcgan64",
        "gan",
        batch=256,
        steps={"cpu": 8, "gpu": 64},
        rate=2e-4,
        betas=(0.5, 0.999),
        sizes=LARGE,
        pool=8,
        bfloat16=True,
    ),
]
WORKLOADS = {workload.name: workload for workload in _ALL}
EVERY = {
    "cpu": ["mlp", "vae", "dcgan", "wgan_gp", "byol", "many"],
    "gpu": ["mlp", "dcgan", "dcgan64"],
}

"""The small system that the doctor trains: a generator and a discriminator."""

from typing import Any

import keras
from keras import layers, ops

from mlsystem.models.model import MLModel
from mlsystem.models.system import MLSystem


class _Generator(MLModel):
    def loss(self, x: Any, y: Any, outputs: Any) -> Any:  # type: ignore[override]
        return ops.mean(ops.softplus(-outputs["fake"]))


class _Discriminator(MLModel):
    def loss(self, x: Any, y: Any, outputs: Any) -> Any:  # type: ignore[override]
        return ops.mean(ops.softplus(outputs["fake"]) + ops.softplus(-outputs["real"]))


class SmallSystem(MLSystem):
    """A GAN of vectors of 16 numbers."""

    routing = "own"

    def __init__(self) -> None:
        super().__init__()
        nets = [keras.Sequential([layers.Dense(32, "relu"), layers.Dense(n)]) for n in (16, 1)]
        self.generator = _Generator(nets[0], optimizer="adam")
        self.discriminator = _Discriminator(nets[1], optimizer="adam")
        self.seed = keras.random.SeedGenerator(0)

    def forward(self, x: Any, training: Any = None) -> Any:
        """Score real and generated vectors."""
        fake = self.generator(keras.random.normal(ops.shape(x), seed=self.seed))
        return {"real": self.discriminator(x), "fake": self.discriminator(fake)}

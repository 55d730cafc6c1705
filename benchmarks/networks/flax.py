"""The networks in Flax (linen), with Keras' initial values."""

from functools import partial
from typing import Any

import jax.numpy as jnp
from flax import linen as nn

from benchmarks.workloads import Workload

_glorot = nn.initializers.glorot_uniform()


class Dense(nn.Module):
    """Hidden layers with rectifiers and a linear last one."""

    hidden: tuple[int, ...]
    outputs: int

    @nn.compact
    def __call__(self, x: Any, train: bool = True) -> Any:
        for units in self.hidden:
            x = nn.relu(nn.Dense(units, kernel_init=_glorot)(x))
        return nn.Dense(self.outputs, kernel_init=_glorot)(x)


class Generator(nn.Module):
    """Noise to images, by transposed convolutions."""

    colors: int
    start: int
    up: tuple[int, ...]
    dtype: Any = jnp.float32

    @nn.compact
    def __call__(self, z: Any, train: bool = True) -> Any:
        norm = _norm(train, self.dtype)
        conv = partial(nn.ConvTranspose, kernel_size=(4, 4), strides=(2, 2), padding="SAME")
        conv = partial(conv, kernel_init=_glorot, dtype=self.dtype)
        size = self.start * self.start * self.up[0]
        x = nn.Dense(size, use_bias=False, kernel_init=_glorot, dtype=self.dtype)(z)
        x = nn.leaky_relu(norm()(x), 0.2).reshape(-1, self.start, self.start, self.up[0])
        for width in self.up[1:]:
            x = nn.leaky_relu(norm()(conv(width, use_bias=False)(x)), 0.2)
        return nn.sigmoid(conv(self.colors)(x))


class Judge(nn.Module):
    """Images to one logit or score each, by convolutions."""

    down: tuple[int, ...]
    norm: bool
    dtype: Any = jnp.float32

    @nn.compact
    def __call__(self, x: Any, train: bool = True) -> Any:
        conv = partial(nn.Conv, kernel_size=(4, 4), strides=(2, 2), kernel_init=_glorot)
        for i, width in enumerate(self.down):
            normed = self.norm and i > 0
            x = conv(width, use_bias=not normed, dtype=self.dtype)(x)
            x = nn.leaky_relu(_norm(train, self.dtype)()(x) if normed else x, 0.2)
        x = x.reshape(len(x), -1)
        return nn.Dense(1, kernel_init=_glorot, dtype=self.dtype)(x)


class Head(nn.Module):
    """A hidden layer with batch norm and a linear one: BYOL's projector and predictor."""

    features: int
    outputs: int

    @nn.compact
    def __call__(self, x: Any, train: bool = True) -> Any:
        x = nn.Dense(self.features, use_bias=False, kernel_init=_glorot)(x)
        x = nn.relu(_norm(train, jnp.float32)()(x))
        return nn.Dense(self.outputs, kernel_init=_glorot)(x)


class Online(nn.Module):
    """BYOL's encoder and projector."""

    down: tuple[int, ...]
    features: int
    projection: int

    @nn.compact
    def __call__(self, x: Any, train: bool = True) -> Any:
        conv = partial(nn.Conv, kernel_size=(4, 4), strides=(2, 2), kernel_init=_glorot)
        for width in self.down:
            x = nn.relu(_norm(train, jnp.float32)()(conv(width, use_bias=False)(x)))
        x = nn.Dense(self.features, kernel_init=_glorot)(x.reshape(len(x), -1))
        return Head(self.features, self.projection)(x, train)


def _norm(train: bool, dtype: Any) -> Any:
    norm = partial(nn.BatchNorm, use_running_average=not train, momentum=0.9, epsilon=1e-5)
    return partial(norm, dtype=dtype)


def networks(workload: Workload) -> dict[str, nn.Module]:
    """The networks of a workload by name."""
    sizes = workload.sizes
    if workload.kind == "mlp":
        return {"model": Dense(sizes["hidden"], sizes["outputs"])}
    if workload.kind == "vae":
        hidden = (sizes["hidden"],)
        return {
            "encoder": Dense(hidden, 2 * sizes["latent"]),
            "decoder": Dense(hidden, sizes["inputs"]),
        }
    return _byol(sizes) if workload.kind == "byol" else _pair(workload, sizes)


def _byol(sizes: dict[str, Any]) -> dict[str, nn.Module]:
    online = Online(sizes["down"], sizes["features"], sizes["projection"])
    return {"online": online, "predictor": Head(sizes["features"], sizes["projection"])}


def _pair(workload: Workload, sizes: dict[str, Any]) -> dict[str, nn.Module]:
    dtype = jnp.bfloat16 if workload.bfloat16 else jnp.float32
    judge = "discriminator" if workload.kind == "gan" else "critic"
    return {
        "generator": Generator(sizes["image"][-1], sizes["start"], sizes["up"], dtype),
        judge: Judge(sizes["down"], workload.kind == "gan", dtype),
    }

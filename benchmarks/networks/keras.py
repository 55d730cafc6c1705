"""The networks in Keras."""

from typing import Any

import keras
from keras import layers

from benchmarks.workloads import EPSILON, Workload


def networks(workload: Workload) -> dict[str, Any]:
    """The networks of a workload by name, built."""
    return _BUILDERS[workload.kind](**workload.sizes)


def adam(workload: Workload) -> keras.optimizers.Adam:
    """One optimizer of a workload."""
    beta_1, beta_2 = workload.betas
    return keras.optimizers.Adam(workload.rate, beta_1, beta_2, epsilon=EPSILON)


def dense(inputs: int, hidden: tuple[int, ...], outputs: int) -> Any:
    """Hidden layers with rectifiers and a linear last one."""
    inner = [layers.Dense(units, activation="relu") for units in hidden]
    return keras.Sequential([keras.Input((inputs,)), *inner, layers.Dense(outputs)])


def _mlp(inputs: int, hidden: tuple[int, ...], outputs: int) -> dict[str, Any]:
    return {"model": dense(inputs, hidden, outputs)}


def _vae(inputs: int, hidden: int, latent: int) -> dict[str, Any]:
    return {
        "encoder": dense(inputs, (hidden,), 2 * latent),
        "decoder": dense(latent, (hidden,), inputs),
    }


def _norm() -> list[Any]:
    return [layers.BatchNormalization(momentum=0.9, epsilon=1e-5)]


def _generator(image: Any, latent: int, start: int, up: tuple[int, ...]) -> Any:
    stack = [
        keras.Input((latent,)),
        layers.Dense(start * start * up[0], use_bias=False),
        *[*_norm(), layers.LeakyReLU(0.2), layers.Reshape((start, start, up[0]))],
    ]
    for width in up[1:]:
        stack.append(layers.Conv2DTranspose(width, 4, 2, padding="same", use_bias=False))
        stack += [*_norm(), layers.LeakyReLU(0.2)]
    last = layers.Conv2DTranspose(image[-1], 4, 2, padding="same", activation="sigmoid")
    return keras.Sequential([*stack, last])


def _judge(image: Any, down: tuple[int, ...], norm: bool) -> Any:
    stack = [keras.Input(image)]
    for i, width in enumerate(down):
        normed = norm and i > 0
        stack.append(layers.Conv2D(width, 4, 2, padding="same", use_bias=not normed))
        stack += [*(_norm() if normed else []), layers.LeakyReLU(0.2)]
    return keras.Sequential([*stack, layers.Flatten(), layers.Dense(1)])


def _gan(image: Any, latent: int, start: int, up: Any, down: Any) -> dict[str, Any]:
    generator = _generator(image, latent, start, up)
    return {"generator": generator, "discriminator": _judge(image, down, norm=True)}


def _wgan_gp(image: Any, latent: int, start: int, up: Any, down: Any) -> dict[str, Any]:
    generator = _generator(image, latent, start, up)
    return {"generator": generator, "critic": _judge(image, down, norm=False)}


def _head(features: int, outputs: int) -> list[Any]:
    hidden = [layers.Dense(features, use_bias=False), *_norm(), layers.ReLU()]
    return [*hidden, layers.Dense(outputs)]


def _byol(image: Any, down: Any, features: int, projection: int) -> dict[str, Any]:
    stack: list[Any] = [keras.Input(image)]
    for width in down:
        stack += [layers.Conv2D(width, 4, 2, padding="same", use_bias=False), *_norm()]
        stack.append(layers.ReLU())
    online = [*stack, layers.Flatten(), layers.Dense(features), *_head(features, projection)]
    predictor = [keras.Input((projection,)), *_head(features, projection)]
    return {"online": keras.Sequential(online), "predictor": keras.Sequential(predictor)}


_BUILDERS = {"mlp": _mlp, "vae": _vae, "gan": _gan, "wgan_gp": _wgan_gp, "byol": _byol}

"""The networks of each workload, described once as layers that each framework builds."""

from collections.abc import Callable
from functools import partial
from typing import Any, NamedTuple

from benchmarks.workloads import Workload


class Layer(NamedTuple):
    """A dense layer or a convolution with what follows it, or a change of shape.

    Convolutions have a kernel of 4x4 and a stride of 2.
    """

    kind: str  # dense, conv or deconv; flatten or image
    size: Any = None  # number of outputs, or the shape of an image
    norm: bool = False  # batch norm in place of the bias
    activation: str | None = None  # relu, leaky or sigmoid


class Network(NamedTuple):
    """Layers in sequence."""

    inputs: tuple[int, ...]  # the shape of a sample, channels last
    layers: tuple[Layer, ...]


def describe(workload: Workload) -> dict[str, Network]:
    """The networks of a workload that learn, by name."""
    return _KINDS[workload.kind](**workload.sizes)


def dense(inputs: int, hidden: tuple[int, ...], outputs: int) -> Network:
    """Hidden layers with rectifiers and a linear last one."""
    inner = [Layer("dense", units, activation="relu") for units in hidden]
    return Network((inputs,), (*inner, Layer("dense", outputs)))


def _vae(inputs: int, hidden: int, latent: int) -> dict[str, Network]:
    encoder = dense(inputs, (hidden,), 2 * latent)
    return {"encoder": encoder, "decoder": dense(latent, (hidden,), inputs)}


def _generator(image: Any, latent: int, start: int, up: tuple[int, ...]) -> Network:
    first = Layer("dense", start * start * up[0], norm=True, activation="leaky")
    inner = [Layer("deconv", width, norm=True, activation="leaky") for width in up[1:]]
    last = Layer("deconv", image[-1], activation="sigmoid")
    return Network((latent,), (first, Layer("image", (start, start, up[0])), *inner, last))


def _judge(image: Any, down: tuple[int, ...], norm: bool) -> Network:
    convs = [Layer("conv", width, norm and i > 0, "leaky") for i, width in enumerate(down)]
    return Network(image, (*convs, Layer("flatten"), Layer("dense", 1)))


def _dense_gan(image: Any, latent: int, hidden: Any) -> dict[str, Network]:
    judge = dense(image[0], hidden, 1)
    return {"generator": dense(latent, hidden, image[0]), "discriminator": judge}


def _game(judge: str, norm: bool, down: Any, **sizes: Any) -> dict[str, Network]:
    return {"generator": _generator(**sizes), judge: _judge(sizes["image"], down, norm)}


def _byol(image: Any, down: Any, features: int, projection: int) -> dict[str, Network]:
    convs = [Layer("conv", width, norm=True, activation="relu") for width in down]
    head = (Layer("dense", features, norm=True, activation="relu"), Layer("dense", projection))
    online = (*convs, Layer("flatten"), Layer("dense", features), *head)
    return {"online": Network(image, online), "predictor": Network((projection,), head)}


_KINDS: dict[str, Callable[..., dict[str, Network]]] = {
    "mlp": lambda **sizes: {"model": dense(**sizes)},
    "many": lambda **sizes: {"regressor": dense(**sizes)},
    "vae": _vae,
    "gan": partial(_game, "discriminator", True),
    "dense_gan": _dense_gan,
    "wgan_gp": partial(_game, "critic", False),
    "byol": _byol,
}

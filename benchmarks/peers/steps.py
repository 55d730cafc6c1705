"""What a step of each workload does, for all programs but mlsystem: one update after another.

A step yields the name of a loss, and a function that computes it; before the next one, the program
updates the networks that the loss trains. `f` are the framework's `Functions`, `nets` the networks.
"""

from collections.abc import Callable, Iterator
from functools import partial
from typing import Any

from benchmarks.networks.layers import describe
from benchmarks.workloads import CRITIC_STEPS, PENALTY, Workload

Updates = Iterator[tuple[str, Callable[[], Any]]]


def trained(workload: Workload) -> dict[str, list[str]]:
    """The networks that each loss trains: in a game its own, else all."""
    names = list(describe(workload))
    is_game = workload.kind in ("gan", "wgan_gp")
    return {name: [name] for name in names} if is_game else {"loss": names}


def mlp(f: Any, nets: Any, x: Any, y: Any) -> Updates:
    """A regression."""
    yield "loss", lambda: f.mse(nets["model"](x), y)


def vae(f: Any, nets: Any, images: Any) -> Updates:
    """An encoder and a decoder."""

    def loss() -> Any:
        mean, log_var = f.posterior(nets["encoder"](images))
        logits = nets["decoder"](f.sample(mean, log_var))
        return f.np.mean(f.divergence(mean, log_var) + f.nats(images, logits))

    yield "loss", loss


def byol(f: Any, nets: Any, images: Any) -> Updates:
    """A network that learns to predict what its moving average sees in another view."""
    views = [f.view(images) for _ in range(2)]
    with f.constant():
        seen = [nets["target"](view) for view in views]

    def loss() -> Any:
        predicted = [nets["predictor"](nets["online"](view)) for view in views]
        return f.np.mean(f.distance(predicted, seen))

    yield "loss", loss


def gan(f: Any, nets: Any, images: Any, anew: bool = False) -> Updates:
    """The discriminator, then the generator, on fakes that are made again, or from other noise."""
    judge, z = nets["discriminator"], f.noise(images)
    with f.constant():
        fakes = nets["generator"](z)
    yield "discriminator", lambda: f.tell(judge(images), judge(fakes))
    z = f.noise(images) if anew else z
    yield "generator", lambda: f.fool(judge(nets["generator"](z)))


def wgan_gp(f: Any, nets: Any, images: Any) -> Updates:
    """The critic several times, then the generator."""
    for _ in range(CRITIC_STEPS):
        with f.constant():
            fakes = nets["generator"](f.noise(images))
        yield "critic", partial(_critic_loss, f, nets["critic"], images, fakes)
    z = f.noise(images)
    yield "generator", lambda: -f.np.mean(nets["critic"](nets["generator"](z)))


def _critic_loss(f: Any, critic: Any, images: Any, fakes: Any) -> Any:
    """Score and penalty."""
    score = f.np.mean(critic(fakes)) - f.np.mean(critic(images))
    return score + PENALTY * f.penalty(f.slope(critic, f.mixed(images, fakes)))


STEPS = {"mlp": mlp, "vae": vae, "byol": byol, "gan": gan, "wgan_gp": wgan_gp}

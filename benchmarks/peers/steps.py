"""What a step of each workload does, for all programs but mlsystem, and what losses are made of.

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


class Functions:
    """The parts of the losses in one framework.

    Its subclasses hold what frameworks do differently: random numbers (`uniform`, `normal`),
    `entropy` (the cross entropy of logits and labels), `nats` (that of each image, summed over its
    pixels), `cosine`, `mse`, `constant` (a context without gradients) and `slope` (the gradient of
    a network with respect to its inputs).
    """

    np: Any  # a namespace with the names of NumPy

    def __init__(self, latent: int = 0, random: Any = None) -> None:
        self.latent, self.random = latent, random

    def noise(self, images: Any) -> Any:
        """The input of a generator, for as many samples as there are images."""
        return self.normal(images, self.latent)

    def posterior(self, codes: Any) -> Any:
        """The means and the logarithms of the variances that an encoder put out."""
        latent = codes.shape[-1] // 2
        return codes[..., :latent], codes[..., latent:]

    def sample(self, mean: Any, log_var: Any) -> Any:
        return mean + self.np.exp(0.5 * log_var) * self.normal(mean, mean.shape[-1])

    def divergence(self, mean: Any, log_var: Any) -> Any:
        """The KL divergence of each sample from the standard normal distribution."""
        return 0.5 * self.np.sum(self.np.exp(log_var) + mean**2 - 1 - log_var, axis=-1)

    def fool(self, fake: Any) -> Any:
        """The loss of a generator, whose fakes are to be taken for real."""
        return self.entropy(self.np.ones_like(fake), fake)

    def tell(self, real: Any, fake: Any) -> Any:
        """The loss of a discriminator, which is to tell real from fake."""
        return self.fool(real) + self.entropy(self.np.zeros_like(fake), fake)

    def mixed(self, images: Any, fakes: Any) -> Any:
        """A point on the line from each fake image to a real one."""
        weight = self.uniform(images, 0, 1)[..., None]
        return weight * images + (1 - weight) * fakes

    def penalty(self, slope: Any) -> Any:
        """WGAN-GP's penalty, from the critic's gradient with respect to its inputs."""
        norm = self.np.sqrt(self.np.sum(slope**2, axis=(1, 2, 3)) + 1e-12)
        return self.np.mean((norm - 1) ** 2)

    def view(self, images: Any) -> Any:
        """Each image moved, resized and turned brighter or darker by its own random amounts."""
        pixels = self.np.reshape(images, (-1, images.shape[2], images.shape[2]))
        rows, columns = self.resampling(images), self.resampling(images)
        moved = self.np.matmul(self.np.matmul(rows, pixels), self.np.swapaxes(columns, 1, 2))
        moved = self.uniform(images, 0.7, 1.3) * moved
        moved = moved + 0.1 * self.normal(moved, *moved.shape[1:])
        return self.np.reshape(moved, (-1, *images.shape[1:]))

    def resampling(self, images: Any) -> Any:
        """Matrices that move and resize each image along one axis."""
        grid = self.grid(images)
        seen = self.uniform(images, 0.8, 1.2) * grid[:, None] + self.uniform(images, -2, 2)
        return self.np.clip(1 - self.np.abs(grid - seen), 0, 1)

    def grid(self, images: Any) -> Any:
        """The coordinates of pixels along one axis."""
        return self.np.arange(float(images.shape[2])) - (images.shape[2] - 1) / 2

    def distance(self, predicted: list[Any], seen: list[Any]) -> Any:
        """BYOL's loss: 2 - 2 cos of what is predicted from a view and seen in the other one."""
        pairs = zip(predicted, reversed(seen), strict=True)
        return sum(2 - 2 * self.cosine(one, other) for one, other in pairs)

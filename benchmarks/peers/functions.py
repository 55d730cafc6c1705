"""What the losses of all programs are made of, written once for the three frameworks."""

from typing import Any


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
        """A draw from the posterior of each sample."""
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

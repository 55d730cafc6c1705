"""The losses in JAX."""

from typing import Any

import jax
import jax.numpy as jnp
import optax


def elbo(images: Any, mean: Any, log_var: Any, logits: Any) -> Any:
    """The negative bound on the evidence."""
    nats = optax.sigmoid_binary_cross_entropy(logits, images).sum(axis=-1)
    divergence = 0.5 * jnp.sum(jnp.exp(log_var) + mean**2 - 1 - log_var, axis=-1)
    return jnp.mean(nats + divergence)


def real(logits: Any) -> Any:
    """The cross entropy of logits whose label is 1."""
    logits = logits.astype(jnp.float32)
    return optax.sigmoid_binary_cross_entropy(logits, jnp.ones_like(logits)).mean()


def fake(logits: Any) -> Any:
    """The cross entropy of logits whose label is 0."""
    logits = logits.astype(jnp.float32)
    return optax.sigmoid_binary_cross_entropy(logits, jnp.zeros_like(logits)).mean()


def between(key: Any, images: Any, fakes: Any) -> Any:
    """A point on the line from each real image to a fake one."""
    weight = jax.random.uniform(key, (len(images), 1, 1, 1))
    return weight * images + (1 - weight) * fakes


def penalty(slope: Any) -> Any:
    """WGAN-GP's penalty, from the critic's gradient with respect to its inputs."""
    norm = jnp.sqrt(jnp.sum(slope**2, axis=(1, 2, 3)) + 1e-12)
    return jnp.mean((norm - 1) ** 2)


def view(key: Any, images: Any) -> Any:
    """Each image moved, resized and turned brighter or darker by its own random amounts."""
    keys, count, size = jax.random.split(key, 6), len(images), images.shape[1]

    def uniform(i: int, low: float, high: float) -> Any:
        return jax.random.uniform(keys[i], (count, 1, 1), minval=low, maxval=high)

    grid = jnp.arange(size) - (size - 1) / 2
    rows, columns = (
        jax.nn.relu(1 - jnp.abs(grid - (uniform(i, 0.8, 1.2) * grid[:, None] + uniform(j, -2, 2))))
        for i, j in ((0, 1), (2, 3))
    )
    moved = rows @ images[..., 0] @ columns.transpose(0, 2, 1)
    noise = 0.1 * jax.random.normal(keys[4], moved.shape)
    return (uniform(5, 0.7, 1.3) * moved + noise)[..., None]


def distance(predicted: Any, seen: Any) -> Any:
    """BYOL's loss: 2 - 2 cos."""
    return 2 - 2 * optax.losses.cosine_similarity(predicted, seen, epsilon=1e-8).mean()

"""What the Keras programs share: losses and augmentation in `keras.ops`, on every backend."""

from typing import Any

import keras
from keras import ops

bce = keras.losses.BinaryCrossentropy(from_logits=True)


def divergence(mean: Any, log_var: Any) -> Any:
    """The KL divergence of each sample from the standard normal distribution."""
    return 0.5 * ops.sum(ops.exp(log_var) + mean**2 - 1 - log_var, axis=-1)


def reconstruction(images: Any, logits: Any) -> Any:
    """The cross entropy of each image, summed over its pixels."""
    nats = keras.losses.binary_crossentropy(images, logits, from_logits=True)
    return images.shape[-1] * nats


def sample(mean: Any, log_var: Any, seed: Any) -> Any:
    """A draw from the posterior of each sample."""
    noise = keras.random.normal(ops.shape(mean), seed=seed)
    return mean + ops.exp(0.5 * log_var) * noise


def view(images: Any, seed: Any) -> Any:
    """Each image moved, resized and turned brighter or darker by its own random amounts."""
    count, size = ops.shape(images)[0], images.shape[1]

    def uniform(low: float, high: float) -> Any:
        return keras.random.uniform((count, 1, 1), low, high, seed=seed)

    grid = ops.arange(size, dtype="float32") - (size - 1) / 2
    rows, columns = (
        ops.relu(1 - ops.abs(grid - (uniform(0.8, 1.2) * grid[:, None] + uniform(-2, 2))))
        for _ in range(2)
    )
    moved = ops.matmul(ops.matmul(rows, images[..., 0]), ops.transpose(columns, (0, 2, 1)))
    noise = 0.1 * keras.random.normal(ops.shape(moved), seed=seed)
    return (uniform(0.7, 1.3) * moved + noise)[..., None]


def distance(predicted: Any, seen: Any) -> Any:
    """BYOL's loss of each sample: 2 - 2 cos."""
    cosine = ops.sum(ops.normalize(predicted, axis=-1) * ops.normalize(seen, axis=-1), axis=-1)
    return 2 - 2 * cosine


def penalty(slope: Any) -> Any:
    """WGAN-GP's penalty, from the critic's gradient with respect to its inputs."""
    norm = ops.sqrt(ops.sum(slope**2, axis=(1, 2, 3)) + 1e-12)
    return ops.mean((norm - 1) ** 2)

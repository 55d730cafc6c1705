"""Batch norm over several replicas that see parts of a batch."""

from typing import Any

import keras
from keras import ops

from mlsystem import _keras
from mlsystem.engine import engine


def share(how: str) -> None:
    """Have batch norm use the statistics of the global batch ("sync"), or of each part."""
    if how == "sync":
        _keras.replace_moments(_of_global_batch)
    engine.replicas.averages_statistics = how == "local"


def _of_global_batch(layer: Any, inputs: Any, mask: Any, moments: Any) -> tuple[Any, Any]:
    """Return mean and variance over all replicas, given the function for one of them."""
    mean, variance = moments(layer, inputs, mask)
    count = ops.ones_like(mean)
    if mask is not None:
        count = count * ops.sum(ops.cast(mask, mean.dtype))
    found = engine.replicas.gather(ops.expand_dims(ops.stack([mean, variance, count]), 0))
    means, variances, counts = found[:, 0], found[:, 1], found[:, 2]
    share = counts / ops.maximum(ops.sum(counts, axis=0), 1e-6)
    mean = ops.sum(share * means, axis=0)
    # The variance within the parts, and that between them (Chan et al. 1979).
    return mean, ops.sum(share * (variances + (means - mean) ** 2), axis=0)


def average_statistics(learner: Any) -> None:
    """Give all replicas the mean of the statistics that each has of its own rows."""
    replicas = engine.replicas
    if not replicas.averages_statistics:
        return
    for layer in _keras.flat_layers(learner.model):
        if isinstance(layer, keras.layers.BatchNormalization):
            for variable in _keras.own_state(layer):
                variable.assign(replicas.total(variable.value / replicas.size))

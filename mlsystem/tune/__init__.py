"""Suggest learning rates and batch sizes, before training.

- `learning_rate`: a learning rate range test for each model (Smith 2017).
- `batch_size`: the batch sizes that fit into memory, and how fast each trains.

Both put back what they change: weights, optimizers, counters, random generators, logs and the place
in the data, bit for bit.
"""

from mlsystem.tune.batch_sizes import BatchSizes, batch_size
from mlsystem.tune.range_test import learning_rate
from mlsystem.tune.rate_curve import LearningRates, RateCurve

__all__ = ["BatchSizes", "LearningRates", "RateCurve", "batch_size", "learning_rate"]

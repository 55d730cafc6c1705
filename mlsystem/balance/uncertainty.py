"""`Uncertainty`: loss weights from learned noise (Kendall et al. 2018)."""

from collections.abc import Iterable, Mapping
from typing import Any

import keras
from keras import ops

from mlsystem.balance.base import Parts
from mlsystem.balance.learned_weights import Learned
from mlsystem.step.routed_gradients import Pass


@keras.saving.register_keras_serializable("mlsystem")
class Uncertainty(Learned):
    r"""Weighs each loss by a noise that is learned: the noisier, the less it counts.

    Minimizes `sum_i exp(-s_i) / 2 * L_i + s_i / 2`, where `s_i`, the logarithm of the variance of
    task i, is learned from 0 on (Kendall, Gal & Cipolla 2018, arXiv:1705.07115, eq. 7 and section
    3.2). For a mean squared error, `exp(s_i)` comes to the variance of what is left of it. The
    losses are to be positive. The terms `s_i / 2` are no part of the logged `loss`.

    ```python
    self.balance = ml.balance.Uncertainty(["depth", "normals"])
    ```

    Each update learns the `s_i` of the losses that the models updated in it follow. One
    that is not finite is left out.

    Args:
        losses: the names of two or more losses.
        optimizer: Keras optimizer of the `s_i`, its class or its name; by default Adam(0.01).

    Raises:
        ValueError: in the rehearsal, before training, for the name of a loss that does not exist.
    """

    def __init__(self, losses: Iterable[str], optimizer: Any = None) -> None:
        super().__init__(losses, optimizer or keras.optimizers.Adam(0.01), start=0.0)

    def passes(self, made: list[Pass], losses: Iterable[str]) -> list[Pass]:
        """The same passes, with other weights."""
        self.check(losses)
        return super().passes(made, losses)

    def factors(self, loss: str) -> tuple[Any, ...]:
        """The weight of a loss, as a function of the batches."""
        return (lambda _: self.weight(loss),)

    def weight(self, loss: str) -> Any:
        """`exp(-s_i) / 2`, a scalar tensor."""
        return ops.exp(-self.parameters[loss].value) / 2

    def log_variance(self, loss: str) -> float:
        """`s_i`, the logarithm of the variance that was learned for a loss."""
        return float(ops.convert_to_numpy(self.parameters[loss]))

    def learn(self, losses: Mapping[str, Any], passes: list[Pass], parts: Parts) -> None:
        """Moves `s_i` down `(1 - exp(-s_i) L_i) / 2`."""
        slopes = {
            name: 0.5 - self.weight(name) * ops.cast(loss, "float32")
            for name, loss in losses.items()
        }
        with self.only_if_finite(*slopes.values()):
            self.descend(slopes)

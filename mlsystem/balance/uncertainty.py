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
    r"""A balance that learns the noise of each loss, and gives noisy losses less weight.

    Use it when losses have different units or scales. It minimizes
    `sum_i exp(-s_i) / 2 * L_i + s_i / 2`. `s_i` is the logarithm of the variance of task i. It is
    learned and starts at 0 (Kendall, Gal & Cipolla 2018, arXiv:1705.07115, eq. 7 and section 3.2).
    For a mean squared error, `exp(s_i)` approaches the variance of the residuals. The losses should
    be positive. The logged `loss` does not contain the terms `s_i / 2`.

    ```python
    rooms.balance = ml.balance.Uncertainty(["depth", "normals"])
    ```

    Each update learns the `s_i` of the losses that the updated models follow. A step with a loss
    that is not finite changes no `s_i`.

    Args:
        losses: the names of two or more losses.
        optimizer: Keras optimizer of the `s_i`, its class or its name. Default: Adam(0.01).

    Raises:
        ValueError: before training, if the name of a loss does not exist.
    """

    def __init__(self, losses: Iterable[str], optimizer: Any = None) -> None:
        super().__init__(losses, optimizer or keras.optimizers.Adam(0.01), start=0.0)

    def passes(self, made: list[Pass], losses: Iterable[str]) -> list[Pass]:
        """Return the same passes with other weights."""
        self.check(losses)
        return super().passes(made, losses)

    def factors(self, loss: str) -> tuple[Any, ...]:
        """Return the weight of a loss, as a function of the batches."""
        return (lambda _: self.weight(loss),)

    def weight(self, loss: str) -> Any:
        """Return `exp(-s_i) / 2`, a scalar tensor."""
        return ops.exp(-self.parameters[loss].value) / 2

    def log_variance(self, loss: str) -> float:
        """Return `s_i`, the learned logarithm of the variance of a loss."""
        return float(ops.convert_to_numpy(self.parameters[loss]))

    def learn(self, losses: Mapping[str, Any], passes: list[Pass], parts: Parts) -> None:
        """Move `s_i` down the gradient `(1 - exp(-s_i) L_i) / 2`."""
        slopes = {
            name: 0.5 - self.weight(name) * ops.cast(loss, "float32")
            for name, loss in losses.items()
        }
        with self.only_if_finite(*slopes.values()):
            self.descend(slopes)

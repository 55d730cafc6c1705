"""`GradNorm`: loss weights that equalize training rates (Chen et al. 2018)."""

from collections.abc import Iterable, Mapping
from typing import Any

import keras
from keras import ops

from mlsystem.balance.base import Parts
from mlsystem.balance.learned_weights import Learned, variable
from mlsystem.routing import model_names, routing_table
from mlsystem.step.routed_gradients import Pass

_LEAST = 1e-4  # minimum of a weight: the norms are those of positive weights


@keras.saving.register_keras_serializable("mlsystem")
class GradNorm(Learned):
    r"""A balance that weighs losses so that they all train at similar rates.

    Use it when some losses fall much faster than others. `G_i` is the norm of the gradient of
    `w_i L_i` in the shared weights. `G` is the mean of these norms. `r_i` is the ratio
    `L_i / L_i(0)`, divided by the mean of these ratios. `L_i(0)` is the loss on the first batch.
    Each step moves the weights down `sum_i |G_i - G r_i^alpha|`, where `G r_i^alpha` is a constant.
    Then it scales the weights so that they sum to the number of losses. The weights start at 1. The
    losses must be positive (Chen et al. 2018, arXiv:1711.02257, eq. 1-2 and algorithm 1).

    ```python
    rooms.balance = ml.balance.GradNorm(["depth", "normals"], shared="encoder", alpha=0.5)
    ```

    It costs one more backward pass per loss, into the shared model only. The paper uses the last
    layer that all tasks share. Make this layer a model of its own to do the same. The weights do
    not change in a step whose losses or norms are not finite.

    Args:
        losses: the names of two or more losses. The shared model follows them.
        shared: the name of the model where gradients are compared, or a list of names.
        alpha: how strongly to speed up slow losses. 0 makes all norms equal.
        optimizer: Keras optimizer of the weights, its class or its name. Default: Adam(0.025).

    Raises:
        ValueError: before training, if a name does not exist, if the shared model does not follow a
            loss, or if a loss does not depend on the shared model.
    """

    def __init__(
        self, losses: Iterable[str], shared: Any, alpha: float = 1.5, optimizer: Any = None
    ) -> None:
        if isinstance(alpha, bool) or not isinstance(alpha, (int, float)) or not alpha >= 0:
            raise ValueError(f"GradNorm got alpha={alpha!r}; give a number from 0.")
        super().__init__(losses, optimizer or keras.optimizers.Adam(0.025), start=1.0)
        self.shared, self.alpha = shared, alpha
        self.models: list[str] = []
        self.initial: dict[str, Any] = {}

    def get_config(self) -> dict[str, Any]:
        """Return the arguments of the constructor, as Keras saves them."""
        return super().get_config() | {"shared": self.shared, "alpha": self.alpha}

    def own(self) -> dict[str, Any]:
        """Return the weights and the losses on the first batch."""
        first = {f"{name.replace('/', ':')}:0": v for name, v in self.initial.items()}
        return super().own() | first

    def prepare(self, system: Any) -> None:
        """Find the shared models and create the variables."""
        known = system._mlsystem.known_models()
        self.models = model_names.resolve(self.shared, known, "GradNorm(shared=)")
        if not self.initial:  # -1 means no loss yet, because losses are positive
            self.initial = {name: variable(f"{name}_0", -1.0) for name in self.losses or ()}
        super().prepare(system)

    def factors(self, loss: str) -> tuple[Any, ...]:
        """Return the weight of a loss."""
        return (self.parameters[loss],)

    def weight(self, loss: str) -> Any:
        """Return `w_i`, a scalar tensor."""
        return self.parameters[loss].value

    def passes(self, made: list[Pass], losses: Iterable[str]) -> list[Pass]:
        """Add one pass per loss into the shared models, only to measure gradients."""
        self.check(losses)
        looks = [look for one in made for look in self._looks(one)]
        return super().passes(made, losses) + looks

    def _looks(self, one: Pass) -> list[Pass]:
        shared = [name for name in one.models if name in self.models]
        return [Pass(self._row(one, n), shared, n, True) for n in self.losses or () if shared]

    def _row(self, one: Pass, loss: str) -> routing_table.Row:
        row = {name: f for name, f in one.row.items() if self.owner(name) == loss}
        if not row:
            raise ValueError(
                f"GradNorm balances the loss '{loss}', which the shared model '{one.models[0]}' "
                f"does not follow: it follows {list(one.row)}. Route it there, or leave it out."
            )
        return row

    def learn(self, losses: Mapping[str, Any], passes: list[Pass], parts: Parts) -> None:
        """Move the weights if the shared models were updated."""
        squares: dict[str, list[Any]] = {name: [] for name in losses}
        looks = [(one, part) for one, part in zip(passes, parts, strict=True) if one.looked_at]
        for one, part in looks:
            squares[one.loss or ""] += _squares(part)
        if looks:
            self._check_reached(squares)
            norms = [ops.sqrt(sum(found)) for found in squares.values()]
            self._move(losses, ops.stack(norms))

    def _check_reached(self, squares: Mapping[str, Any]) -> None:
        for name, found in squares.items():
            if not found:
                raise ValueError(
                    f"GradNorm balances the loss '{name}', which does not depend on the shared "
                    f"weights, those of {self.models}. Leave it out, or name another model."
                )

    def _move(self, losses: Mapping[str, Any], norms: Any) -> None:
        values = ops.stack([ops.cast(loss, "float32") for loss in losses.values()])
        weights = ops.stack([self.weight(name) for name in losses])
        known = ops.stack([self.initial[name].value for name in losses])
        first = ops.where(known < 0, values, known)
        found = weights * norms
        slopes = ops.sign(found - self._target(found, values / first)) * norms
        with self.only_if_finite(*ops.unstack(first), *ops.unstack(slopes)):
            for i, name in enumerate(losses):
                self.initial[name].assign(first[i])
            self.descend({name: slopes[i] for i, name in enumerate(losses)})
            self._renormalize()

    def _target(self, found: Any, progress: Any) -> Any:
        rates = progress / ops.mean(progress)
        return ops.mean(found) * rates**self.alpha

    def _renormalize(self) -> None:
        floored = {n: ops.maximum(v.value, _LEAST) for n, v in self.parameters.items()}
        factor = len(floored) / sum(floored.values())
        for name, value in floored.items():
            self.parameters[name].assign(value * factor)


def _squares(part: Mapping[str, list[Any]]) -> list[Any]:
    found = [g for mine in part.values() for g in mine if g is not None]
    return [ops.sum(ops.square(ops.cast(g, "float32"))) for g in found]

"""`PCGrad`: project conflicting gradients of different losses (Yu et al. 2020)."""

from collections.abc import Iterable, Mapping
from typing import Any

import keras
from keras import ops

from mlsystem.balance.base import Balance, Parts, log
from mlsystem.routing import model_names, routing_table
from mlsystem.step.loss_values import LossValues
from mlsystem.step.routed_gradients import Pass


@keras.saving.register_keras_serializable("mlsystem")
class PCGrad(Balance):
    r"""A balance that removes from each gradient the part that conflicts with another loss.

    Use it when losses pull shared weights in opposite directions. The gradient `g_i` of each loss
    is compared with the gradients `g_j` of the other losses, in random order. If their scalar
    product is negative, `g_i` loses its part along `g_j`: `g_i -= (g_i . g_j) / |g_j|^2 g_j`. The
    sum of the remaining gradients updates the weights (Yu et al. 2020, arXiv:2001.06782, algorithm
    1). The gradients are those of the routing, over all weights that two or more of the losses
    reach. Other weights get their usual gradients.

    ```python
    rooms.balance = ml.balance.PCGrad()
    ```

    It costs one backward pass per loss, instead of one for all. `LOSS_weight` in the logs is the
    factor of the loss' gradient in the sum. It is 1 if nothing conflicts.

    Args:
        losses: the names of two or more losses. Default: all losses of the system.
        seed: whole number that seeds the random orders.

    Raises:
        ValueError: before training, if the name of a loss does not exist.
    """

    def __init__(self, losses: Iterable[str] | None = None, seed: int | None = None) -> None:
        super().__init__(losses)
        self.seed = seed
        self.generator = keras.random.SeedGenerator(seed)

    def get_config(self) -> dict[str, Any]:
        """Return the arguments of the constructor, as Keras saves them."""
        return super().get_config() | {"seed": self.seed}

    @property
    def variables(self) -> list[Any]:
        """The state of the random generator."""
        return [self.generator.state]

    def save_own_variables(self, store: Any) -> None:
        """Save the state of the generator. Keras calls this with one group of a file."""
        store["seed"] = self.generator.state

    def load_own_variables(self, store: Any) -> None:
        """Load the state of the generator. Keras calls this with one group of a file."""
        self.generator.state.assign(store["seed"])

    def passes(self, made: list[Pass], losses: Iterable[str]) -> list[Pass]:
        """Return one pass for each loss, and one for all losses that are not named."""
        self.check(losses)
        names = top(losses) if self.losses is None else self.losses
        return [part for one in made for part in _split(one, names)]

    def merged(
        self, learner: Any, passes: list[Pass], parts: Parts, taken: LossValues
    ) -> dict[str, list[Any]]:
        """Return the sum of the remaining gradients, by model."""
        tasks = list(dict.fromkeys(one.loss for one in passes if one.loss is not None))
        by_model = _by_model(passes, parts)
        shared = [w for w in _all(by_model) if len(_of_tasks(w)) > 1]
        weights: dict[str, Any] = {}
        if len(tasks) > 1 and shared:
            counts = self._counts(_products(shared, tasks))
            weights = {name: counts[i] for i, name in enumerate(tasks)}
            taken.then.append(lambda: log(learner, weights))
        return {name: [_sum(w, weights) for w in mine] for name, mine in by_model.items()}

    def _counts(self, products: Any) -> Any:
        """Return the factor of each gradient in the sum, given all their scalar products.

        A remaining gradient is a sum of the gradients. So its scalar products follow from the given
        ones.
        """
        n = products.shape[0]
        one = ops.eye(n, dtype="float32")
        left, squares = one, ops.diagonal(products)
        orders = ops.argsort(keras.random.uniform((n, n), seed=self.generator), axis=-1)
        for turn in range(n):
            other = ops.one_hot(orders[:, turn], n, dtype="float32")
            product = ops.sum(ops.matmul(left, products) * other, axis=1)
            square = ops.sum(other * squares, axis=1)
            conflicts = (product < 0) & (ops.sum(other * one, axis=1) == 0)
            share = ops.where(conflicts, product / ops.where(conflicts, square, 1.0), 0.0)
            left = left - share[:, None] * other
        return ops.sum(left, axis=0)


# The gradients of one weight by loss. The key None holds the gradient of the unnamed losses.
Weight = dict[str | None, Any]


def top(losses: Iterable[str]) -> list[str]:
    """Return the losses that are not part of another loss.

    >>> top(["vae", "vae/encoder", "critics/0"])
    ['vae', 'critics/0']
    """
    known = list(losses)
    return [n for n in known if not any(n.startswith(f"{other}/") for other in known)]


def _split(one: Pass, names: list[str]) -> list[Pass]:
    rows: dict[str | None, routing_table.Row] = {}
    for entry, factors in one.row.items():
        owners = [name for name in names if model_names.named(name, [entry])]
        rows.setdefault(max(owners, key=len, default=None), {})[entry] = factors
    return [Pass(row, one.models, loss) for loss, row in rows.items()]


def _by_model(passes: list[Pass], parts: Parts) -> dict[str, list[Weight]]:
    found: dict[str, list[Weight]] = {}
    for one, part in zip(passes, parts, strict=True):
        for model, gradients in part.items():
            weights = found.setdefault(model, [{} for _ in gradients])
            for weight, gradient in zip(weights, gradients, strict=True):
                if gradient is not None:
                    weight[one.loss] = gradient
    return found


def _all(by_model: Mapping[str, list[Any]]) -> list[Weight]:
    return [weight for mine in by_model.values() for weight in mine]


def _of_tasks(weight: Weight) -> list[str]:
    return [name for name in weight if name is not None]


def _products(shared: list[Weight], tasks: list[str]) -> Any:
    """Return the scalar products of the gradients of any two losses, over the shared weights."""
    found = {(a, b): _product(shared, a, b) for i, a in enumerate(tasks) for b in tasks[i:]}
    return ops.stack(
        [ops.stack([found.get((a, b), found.get((b, a))) for b in tasks]) for a in tasks]
    )


def _product(shared: list[Weight], a: str, b: str) -> Any:
    pairs = [(weight[a], weight[b]) for weight in shared if a in weight and b in weight]
    zero = ops.zeros((), "float32")
    return sum((ops.sum(ops.cast(p, "float32") * ops.cast(q, "float32")) for p, q in pairs), zero)


def _sum(weight: Weight, weights: Mapping[Any, Any]) -> Any:
    """Return the gradient that updates one weight, or None if no loss reaches it."""
    balanced = len(_of_tasks(weight)) > 1
    terms = [
        g * ops.cast(weights[name], g.dtype) if balanced and name in weights else g
        for name, g in weight.items()
    ]
    return sum(terms[1:], terms[0]) if terms else None

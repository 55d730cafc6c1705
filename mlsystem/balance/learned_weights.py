"""`Learned`: base class of `GradNorm` and `Uncertainty`, with one learned parameter per loss."""

import contextlib
from collections.abc import Iterable, Mapping
from typing import Any

import keras
from keras import ops

from mlsystem.balance.base import Balance, Parts, log
from mlsystem.engine import engine, select
from mlsystem.optimizers import creation
from mlsystem.step.loss_values import LossValues
from mlsystem.step.routed_gradients import Pass


class Learned(Balance):
    """A balance with one learned parameter per loss and the optimizer of these parameters.

    Args:
        losses: the names of the losses.
        optimizer: Keras optimizer, its class or its name.
        start: the first value of each parameter.
    """

    def __init__(self, losses: Iterable[str], optimizer: Any, start: float) -> None:
        if losses is None:
            raise ValueError(f"{type(self).__name__} needs the names of the losses, a list.")
        super().__init__(losses)
        self.optimizer = creation.make(optimizer, "balance")
        self.start = start
        self.parameters: dict[str, Any] = {}

    def get_config(self) -> dict[str, Any]:
        """Return the arguments of the constructor, as Keras saves them."""
        return super().get_config() | {
            "optimizer": keras.saving.serialize_keras_object(self.optimizer)
        }

    @classmethod
    def from_config(cls, config: dict[str, Any]) -> "Learned":
        """Return a new balance with its own state, from the result of `get_config`."""
        optimizer = keras.saving.deserialize_keras_object(config["optimizer"])
        return cls(**config | {"optimizer": optimizer})

    def own(self) -> dict[str, Any]:
        """Return the variables by their names in a file, without the optimizer's variables."""
        return {name.replace("/", ":"): v for name, v in self.parameters.items()}

    @property
    def variables(self) -> list[Any]:
        """The parameters and the state of the optimizer."""
        return [*self.own().values(), *self.optimizer.variables]

    def prepare(self, system: Any) -> None:
        """Create the parameters."""
        if self.parameters:
            return
        self.parameters = {name: variable(name, self.start) for name in self.losses or ()}
        if not self.optimizer.built:
            self.optimizer.build(list(self.parameters.values()))
        creation.check_built("balance", self.optimizer, list(self.parameters.values()))

    def save_own_variables(self, store: Any) -> None:
        """Save the parameters. Keras calls this with one group of a file."""
        for name, held in self.own().items():
            store[name] = held

    def load_own_variables(self, store: Any) -> None:
        """Load the parameters. Keras calls this with one group of a file."""
        if differ := sorted(set(self.own()) ^ set(store.keys())):
            raise ValueError(
                f"The file balances other losses than {self.losses}: {', '.join(differ)}."
            )
        for name, held in self.own().items():
            held.assign(store[name])

    def merged(
        self, learner: Any, passes: list[Pass], parts: Parts, taken: LossValues
    ) -> dict[str, list[Any]]:
        """Return the gradients unchanged, and plan to log and learn after the update."""
        names = {self.owner(name) for one in passes for name in one.row}
        followed = [name for name in self.losses or () if name in names]
        weights = {name: ops.copy(self.weight(name)) for name in followed}

        def then() -> None:
            log(learner, weights)
            self.learn({name: taken.losses[name] for name in followed}, passes, parts)

        if followed:  # by the updated models
            taken.then.append(then)
        pairs = zip(passes, parts, strict=True)
        return {name: mine for one, p in pairs if not one.looked_at for name, mine in p.items()}

    def weight(self, loss: str) -> Any:
        """Return the current weight of a loss, a scalar tensor."""
        raise NotImplementedError

    def learn(self, losses: Mapping[str, Any], passes: list[Pass], parts: Parts) -> None:
        """Move the parameters of the followed losses, given the values of these losses."""
        raise NotImplementedError

    def descend(self, gradients: Mapping[str, Any]) -> None:
        """Run one step of the optimizer with these gradients."""
        chosen = [self.parameters[name] for name in gradients]
        engine.apply(self.optimizer, list(gradients.values()), chosen)

    def only_if_finite(self, *values: Any) -> contextlib.AbstractContextManager[None]:
        """Keep the state unchanged in this context if a value is not finite.

        Such a loss or gradient would spoil the state.
        """
        finite = ops.all(ops.isfinite(ops.stack([ops.cast(v, "float32") for v in values])))
        return select.only(finite, self.variables, engine.kept)


def variable(name: str, start: Any) -> Any:
    """Return a new scalar variable that is kept between steps and that no model trains."""
    return keras.Variable(
        start,
        dtype="float32",
        trainable=False,
        name=f"balance_{name.replace('/', '_')}",
        aggregation="mean",
    )

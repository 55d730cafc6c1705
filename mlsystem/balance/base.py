"""`Balance`: base class of the ways to balance losses."""

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from mlsystem import _keras
from mlsystem.routing import members, model_names, routing_table
from mlsystem.step import context
from mlsystem.step.loss_values import LossValues
from mlsystem.step.routed_gradients import Pass

Parts = Sequence[Mapping[str, list[Any]]]


class Balance(_keras.KerasSaveable):
    """A base class that balances some losses of a system. Do not use it directly.

    See `mlsystem.balance` for the subclasses. A subclass plans the backward passes (`passes`) and
    combines their gradients (`merged`). It learns from them once the gradients are applied
    (`learn`).

    Args:
        losses: the names of the losses, as in the logs without `_loss`.
    """

    def __init__(self, losses: Iterable[str] | None) -> None:
        self.losses = losses if losses is None else _names(losses, type(self).__name__)

    def _obj_type(self) -> str:
        return "Loss"  # a kind of object that Keras knows how to save

    def get_config(self) -> dict[str, Any]:
        """Return the arguments of the constructor, as Keras saves them."""
        return {"losses": self.losses}

    @classmethod
    def from_config(cls, config: dict[str, Any]) -> "Balance":
        """Return a new balance with its own state, from the result of `get_config`."""
        return cls(**config)

    @property
    def variables(self) -> list[Any]:
        """All variables that the balance changes in a step."""
        return []

    def prepare(self, system: Any) -> None:
        """Create the variables, once the models of the system have weights."""

    def passes(self, made: list[Pass], losses: Iterable[str]) -> list[Pass]:
        """Return the backward passes to run, given the passes that the routing plans."""
        return [Pass(self.weighed(one.row), one.models) for one in made]

    def weighed(self, row: routing_table.Row) -> routing_table.Row:
        """Return a row with one more factor for each balanced loss."""
        named = {name: self.owner(name) for name in row}
        return {n: f + self.factors(o) if (o := named[n]) else f for n, f in row.items()}

    def owner(self, name: str) -> str | None:
        """Return the balanced loss that a name stands for or is a part of."""
        owners = [loss for loss in self.losses or () if model_names.named(loss, [name])]
        return max(owners, key=len, default=None)

    def factors(self, loss: str) -> tuple[Any, ...]:
        """Return the factors of a loss that the balance adds. The base class adds none."""
        return ()

    def merged(
        self, learner: Any, passes: list[Pass], parts: Parts, taken: LossValues
    ) -> dict[str, list[Any]]:
        """Return the gradients of each model, combined from the gradients of each pass."""
        raise NotImplementedError

    def check(self, losses: Iterable[str]) -> None:
        """Raise an error for names of losses that do not exist."""
        known = list(losses)
        for name in self.losses or ():
            if name not in known:
                raise ValueError(
                    f"The balance {type(self).__name__} names the loss {name!r}, which does not "
                    f"exist. {model_names.listing(known)}"
                )


def log(learner: Any, weights: Mapping[str, Any]) -> None:
    """Log the weight of each loss in this step."""
    if this := learner.step:
        for name, weight in weights.items():
            owner = f"the weight of the loss '{name}'"
            context.track(this, f"{name}_weight", owner, weight, this.batch.size)


def _names(losses: Any, owner: str) -> list[str]:
    found = list(losses) if isinstance(losses, Iterable) and not isinstance(losses, str) else []
    if len(set(found)) < 2 or not all(isinstance(name, str) for name in found):
        raise ValueError(
            f"{owner} got losses={losses!r}; give a list of the names of two or more losses."
        )
    return list(dict.fromkeys(found))


def prepare(system: Any) -> None:
    """Prepare the balance of a system. Copy a balance that is set on the class, for this system."""
    for name, inner in members.nested(system).items():
        _check_inner(name, inner)
    given = system.balance
    if given is None:
        return
    if not isinstance(given, Balance):
        raise ValueError(
            f"`balance` of '{system.name}' is {given!r}; give an object of `ml.balance`, as "
            'ml.balance.Uncertainty(["depth", "normals"]).'
        )
    if "balance" not in vars(system):
        given = vars(system)["balance"] = type(given).from_config(given.get_config())
    given.prepare(system)


def _check_inner(name: str, inner: Any) -> None:
    if inner.balance is not None:
        raise ValueError(
            f"'{name}' has a `balance`, and is a part of a system. Give that system the balance; "
            f"there the losses of '{name}' are called '{name}/...'. And set `balance` of '{name}' "
            "to None."
        )

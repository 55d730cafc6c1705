"""What all ways to balance losses share: where they come in between losses and gradients."""

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from mlsystem import _keras
from mlsystem.losses.found import Taken
from mlsystem.routing import members, model_names, routing_table
from mlsystem.step import context
from mlsystem.step.routed_gradients import Pass

Parts = Sequence[Mapping[str, list[Any]]]


class Balance(_keras.KerasSaveable):
    """Balances some losses of a system. Not for use itself: see `mlsystem.balance`.

    It plans the backward passes (`passes`), puts together what they find (`merged`), and learns
    from that once the gradients are applied (`learn`).

    Args:
        losses: the names of the losses, as in the logs without `_loss`.
    """

    def __init__(self, losses: Iterable[str] | None) -> None:
        self.losses = losses if losses is None else _names(losses, type(self).__name__)

    def _obj_type(self) -> str:
        return "Loss"  # one of those that Keras knows how to save

    def get_config(self) -> dict[str, Any]:
        """The arguments of the constructor, as Keras saves them."""
        return {"losses": self.losses}

    @classmethod
    def from_config(cls, config: dict[str, Any]) -> "Balance":
        """Makes one of such a configuration, with a state of its own."""
        return cls(**config)

    @property
    def variables(self) -> list[Any]:
        """All that it changes in a step."""
        return []

    def prepare(self, system: Any) -> None:
        """Makes the variables, once the models of the system have weights."""

    def passes(self, made: list[Pass], losses: Iterable[str]) -> list[Pass]:
        """The backward passes that it takes in place of those that the routing asks for."""
        return [Pass(self.weighed(one.row), one.models) for one in made]

    def weighed(self, row: routing_table.Row) -> routing_table.Row:
        """A row with a factor more for each loss that is balanced."""
        named = {name: self.owner(name) for name in row}
        return {n: f + self.factors(o) if (o := named[n]) else f for n, f in row.items()}

    def owner(self, name: str) -> str | None:
        """The balanced loss that a name stands for, or is a part of."""
        owners = [loss for loss in self.losses or () if model_names.named(loss, [name])]
        return max(owners, key=len, default=None)

    def factors(self, loss: str) -> tuple[Any, ...]:
        """What the weight of a loss is multiplied by; here nothing."""
        return ()

    def merged(
        self, learner: Any, passes: list[Pass], parts: Parts, taken: Taken
    ) -> dict[str, list[Any]]:
        """The gradients of each model, of what each pass has found."""
        raise NotImplementedError

    def check(self, losses: Iterable[str]) -> None:
        """Refuses names of losses that do not exist."""
        known = list(losses)
        for name in self.losses or ():
            if name not in known:
                raise ValueError(
                    f"The balance {type(self).__name__} names the loss {name!r}, which does not "
                    f"exist. {model_names.listing(known)}"
                )


def log(learner: Any, weights: Mapping[str, Any]) -> None:
    """Logs the weight that each loss had in this step."""
    this = learner.step
    for name, weight in weights.items():
        owner = f"the weight of the loss '{name}'"
        size = this.batch.size if this else None
        context.track(learner, f"{name}_weight", owner, weight, size)


def _names(losses: Any, owner: str) -> list[str]:
    found = list(losses) if isinstance(losses, Iterable) and not isinstance(losses, str) else []
    if len(set(found)) < 2 or not all(isinstance(name, str) for name in found):
        raise ValueError(
            f"{owner} got losses={losses!r}; give a list of the names of two or more losses."
        )
    return list(dict.fromkeys(found))


def prepare(system: Any) -> None:
    """Readies the balance of a system: one of its own, where its class has one for all."""
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

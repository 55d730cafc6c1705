"""The view of one model that `For` gives to its callback."""

from typing import Any

from mlsystem import _learner
from mlsystem.routing import model_names

# Attributes that a callback reads and sets on the system instead of the model.
_OF_THE_FIT = ("stop_training", "stop_evaluating", "stop_predicting")


class View:
    """A stand-in for one model, where a callback expects the model that `fit` trains.

    The optimizer and the metrics come from the system. All other attributes come from the model.

    Args:
        system: the system that is trained.
        path: the name of the model in the system.
    """

    def __init__(self, system: Any, path: str) -> None:
        self.__dict__.update(system=system, path=path, member=find(system, path))

    @property
    def optimizer(self) -> Any:
        """The optimizer of the model, or None for a model that is not trained."""
        return self.system.optimizers.get(self.path)

    @property
    def metrics(self) -> list[Any]:
        """The metrics of the model. Keras reads from them whether higher is better."""
        found = self.system._mlsystem.metrics
        return [found[self.path]] if self.path in found else []

    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        """Call the model."""
        return self.member(*args, **kwargs)

    def __getattr__(self, name: str) -> Any:
        if name.startswith("__"):  # copy and pickle ask before `member` is set
            raise AttributeError(name)
        owner = self.system if name in _OF_THE_FIT else self.member
        if not hasattr(owner, name):
            raise AttributeError(
                f"A callback asks for `{name}` of '{self.path}', which is a "
                f"{type(owner).__name__} and has none."
            )
        return getattr(owner, name)

    def __setattr__(self, name: str, value: Any) -> None:
        setattr(self.system if name in _OF_THE_FIT else self.member, name, value)


def models(system: Any) -> dict[str, Any]:
    """Return the models of a system by name."""
    return dict(system._mlsystem.members())


def find(system: Any, path: str) -> Any:
    """Return the model with a name. Raise an error if no model or several models match."""
    if not _learner.is_system(system):
        raise ValueError(
            f"For('{path}', ...) names a model of a system, and '{system.name}' is a "
            f"{type(system).__name__}. Give the callback itself."
        )
    known = models(system)
    if path in known:
        return known[path]
    if several := model_names.named(path, known):
        raise ValueError(
            f"For('{path}', ...) names several models: {', '.join(map(repr, several))}. "
            "Give each a callback of its own."
        )
    raise ValueError(
        f"For('{path}', ...) names no model of '{system.name}'. {model_names.listing(known)}"
    )

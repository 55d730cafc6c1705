"""`Learner`: the state and behaviour that mlsystem attaches to each model as `model._mlsystem`.

The library sets no other attribute on a user's model, except two groups for files, `_seeds` and
`_members`. The frozen parts are replaced as a whole. `Compiled` changes in place. Subclasses hold
the differences: the learners of a model (`models/model_learner.py`), of a system
(`models/system_learner.py`) and of a copy (`models/ema.py`).
"""

import threading
import weakref
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any

# The step that runs in each thread.
running = threading.local()
# The learners of all models.
_made: "weakref.WeakSet[Learner]" = weakref.WeakSet()


@dataclass(frozen=True)
class Given:
    """The arguments of the constructor and of `compile`, and optimizer weights from a file."""

    loss: Any = None
    optimizer: Any = None
    metrics: Any = None
    weighted_metrics: Any = None
    loss_weights: Any = None
    auto_scale_loss: bool = True
    jit_compile: Any = "auto"
    groups_steps: bool = False  # compile got steps_per_execution="auto"
    optimized: Mapping[str, list[int]] = field(default_factory=dict)


@dataclass(frozen=True)
class Role:
    """The place of a model in the system that trains it.

    Attributes:
        key: the name of the model in the system.
        optimizer: its optimizer there.
        outer: the learner of the system. None for a model that is in no system.
        own: an optimizer that the user gave the model later, which the system does not use.
        has_name: whether the user named the model, not an attribute.
    """

    key: str = ""
    optimizer: Any = None
    outer: "Learner | None" = None
    own: Any = None
    has_name: bool = True


@dataclass(frozen=True)
class Wiring:
    """The members of a system, and their losses and metrics from `compile`."""

    direct: Mapping[str, Any]
    losses: Mapping[str, Any]
    metrics: Mapping[str, Any]


@dataclass(frozen=True)
class Setup:
    """The data for training a model whose weights are built.

    `members` are the models by name, those of nested systems included. `weights` are all weights
    that may be frozen and unfrozen.
    """

    weights: Sequence[Any]
    members: Mapping[str, Any]
    phases: Sequence[Sequence[str]] = ()
    turns: Mapping[str, Any] = field(default_factory=dict)
    conditions: Mapping[str, Any] = field(default_factory=dict)


@dataclass(frozen=True)
class OwnLoss:
    """What is known of a model's own loss until the model is compiled again.

    Attributes:
        exists: whether the model has a loss: a method, or a loss that was given to it.
        compares: whether the loss was given, and compares the model's own targets and outputs.
        adds_regularizers: whether the loss is an overridden `compute_loss`.
    """

    exists: bool = False
    compares: bool = False
    adds_regularizers: bool = False


@dataclass(frozen=True)
class KnownLosses:
    """The names of the losses of the last training step, and of the parts that sum to them."""

    names: Sequence[str] = ()
    parts: Sequence[str] = ()


@dataclass
class Compiled:
    """The state of the compiled steps, so that they are compiled again only if necessary.

    Attributes:
        rehearsed: for each step, the shapes on which it was rehearsed.
        transforms: the transform in each step.
        made_from: the attributes and methods in the compiled steps. See
            `preparation/recompilation.py`.
        restless: the attributes that change by themselves.
        hasty: for each attribute, the number of calls in a row before which it changed.
        changes: how often a number in an attribute has changed.
        trained: for each weight, whether it was trained when the current step was compiled.
        reached: the ids of the weights that some loss reaches.
        warned: the names of the models about which the user was warned.
        due: the models updated on this batch. None for all models.
        batches: the number of batches seen, as counted on the host.
        shown: the logs of the epoch so far.
    """

    rehearsed: dict[str, set[str]] = field(default_factory=dict)
    transforms: dict[str, Any] = field(default_factory=dict)
    made_from: Any = None
    restless: set[Any] = field(default_factory=set)
    hasty: dict[Any, int] = field(default_factory=dict)
    changes: int = 0
    trained: tuple[bool, ...] = ()
    reached: set[int] = field(default_factory=set)
    warned: set[str] = field(default_factory=set)
    due: frozenset[str] | None = None
    batches: int = 0
    shown: dict[str, Any] = field(default_factory=dict)

    def reset(self) -> None:
        """Forget everything that a new configuration may change."""
        for known in (self.rehearsed, self.warned, self.reached):
            known.clear()


class Learner:
    """The state and behaviour for training one model. The Keras model itself is `model`.

    Attributes:
        arguments: the constructor's arguments by name. None if some have no names.
        given, role, wiring, setup, known, compiled: see their classes. `wiring` and `setup` are
            None until the model is set up.
        is_begun: whether the constructor of `MLModel` was called.
        is_ready: whether the model is set up for its configuration.
        is_current: whether `setup` and `wiring` hold the present members.
        call: the running call of `fit`, `evaluate` or `predict`. None outside of a call.
        logs: the running means.
        losses: the data that the losses of the current forward pass share.
        symbols: the shapes of the batch from which the weights were built.
        ranges: the ranges of the whole numbers in that batch, one for each array.
        data: the result of the model's own method `data`.
        condition: the `when` of the current update, a boolean tensor.
        multipliers: the `learning_rate_multipliers` of an ensemble, one for each member.
        told: the names of attributes that are not read, about which the user was warned.
        own_loss: whether the model has its own loss, and what kind of loss.
        assigned: the variables that `forward` may assign, such as statistics and queues.
    """

    # Known until the next configuration.
    own_loss: OwnLoss
    assigned: list[Any]

    multipliers: list[float] | None = None
    shuffles_anew = False  # whether this library draws a new order of arrays in each epoch

    def __init__(self, model: Any, logs: Any, losses: Any) -> None:
        self.model, self.logs, self.losses = model, logs, losses
        _made.add(self)
        self.arguments: dict[str, Any] | None = None
        self.given, self.role, self.known = Given(), Role(), KnownLosses()
        self.wiring: Wiring | None = None
        self.setup: Setup | None = None
        self.call: Any = None
        self.is_begun = self.is_ready = self.is_current = False
        self.compiled = Compiled()
        self.symbols: Any = None
        self.ranges: list[tuple[int, int]] = []
        self.data: Any = None
        self.condition: Any = None
        self.told: set[str] = set()

    def reset(self) -> None:
        """Note a new configuration or new members. They are read when a call starts."""
        self.is_ready = self.is_current = False
        self.known = KnownLosses()
        self.compiled.reset()
        self.forget()

    def forget(self) -> None:
        """Forget what is known until the next configuration, also in the systems around."""
        for name in list(vars(self)):
            if isinstance(getattr(type(self), name, None), cached_property):
                del vars(self)[name]
        if self.role.outer is not None:
            self.role.outer.forget()

    @property
    def step(self) -> Any:
        """The step of this learner that is running in this thread. None outside of a step."""
        step = getattr(running, "step", None)
        return step if step is not None and step.learner is self else None

    def is_in_fit(self) -> bool:
        """Return whether `fit` is running, of this model or of a system around it."""
        outer = self.role.outer
        is_own = self.call is not None and self.call.arguments is not None
        return is_own or (outer is not None and outer.is_in_fit())

    @property
    def name(self) -> str:
        """The name of the model."""
        name: str = self.model.name
        return name

    @property
    def optimizers(self) -> Mapping[str, Any]:
        """The optimizer of each trained model."""
        found: Mapping[str, Any] = self.model.optimizers
        return found

    @cached_property
    def rates_of_members(self) -> Mapping[str, list[float]]:
        """The `learning_rate_multipliers` of the ensembles among the trained models, by name."""
        learners = {name: of(model) for name, model in self.models().items()}
        return {n: one.multipliers for n, one in learners.items() if one and one.multipliers}

    def check_optimizer(self, optimizer: Any) -> None:
        """Raise an error for an optimizer that the model cannot be trained by."""

    # Before the first step -------------------------------------------------------------------

    def ensure_compiled(self) -> None:
        """Compile the model if it is not compiled yet."""
        raise NotImplementedError

    def finish_build(self) -> None:
        """Create optimizers and everything else that needs weights, and set `setup`."""
        raise NotImplementedError

    def retrain(self) -> None:
        """Update the state that depends on frozen weights."""
        raise NotImplementedError

    # Models, and the losses they follow ------------------------------------------------------

    def members(self) -> Mapping[str, Any]:
        """Return the models by name, frozen ones and copies included."""
        raise NotImplementedError

    def models(self) -> dict[str, Any]:
        """Return the trained models by name."""
        raise NotImplementedError

    def known_models(self) -> list[str]:
        """Return the names of the models that are trained, or would be if they were not frozen."""
        return list(self.models())

    def phases(self) -> Sequence[Sequence[str]]:
        """Return the models of each phase."""
        return [list(self.models())]

    def rows(self, losses: Sequence[str]) -> dict[str, Any]:
        """Return the losses that each model follows, with their weights."""
        raise NotImplementedError

    @property
    def balance(self) -> Any:
        """The balance of the losses, or None."""
        return None

    # Parts of a step -------------------------------------------------------------------------

    def find_losses(self, batch: Any, outputs: Any, training: bool) -> Any:
        """Compute the losses of one forward pass, and their named terms, as a `LossValues`."""
        raise NotImplementedError

    def finite(self, step: Any, gradients: Mapping[str, Any]) -> dict[str, Any]:
        """Return, by model, whether its gradients are finite, a boolean tensor. None: unchecked."""
        return dict.fromkeys(gradients)

    def restorable(self) -> list[Any]:
        """Return the variables to restore if the update of any of the models is skipped."""
        return [] if self.condition is None else self.assigned

    def follow(self, updated: Mapping[str, Any]) -> None:
        """Update the copies that follow some models, if these were updated."""

    def update_metrics(self, step: Any, batch: Any, outputs: Any, updated: Any) -> None:
        """Update the metrics of the updated models, under their conditions, or of all models."""
        raise NotImplementedError

    def updated_by_hand(self) -> Iterable[Any]:
        """Return the variables of metrics that only the user's own code updates."""
        return ()

    # State and logs --------------------------------------------------------------------------

    def state_variables(self) -> list[Any]:
        """Return all variables that a step may read or assign, each once."""
        raise NotImplementedError

    def counted_variables(self) -> list[Any]:
        """Return the variables that count events of an update."""
        return list(self.model.metrics_variables)

    def batches_seen(self) -> Any:
        """Return the number of batches before this one."""
        return self.model.optimizer.iterations

    def to_logs(self, step: Any) -> None:
        """Move the losses of a step into the running means."""
        raise NotImplementedError

    def close_step(self, step: Any) -> None:
        """End a step: move the losses that are not in the logs yet."""
        if step.ledger.counted:
            self.to_logs(step)

    def epoch_logs(self, logs: dict[str, Any]) -> dict[str, Any]:
        """Return the logs of an epoch, from the logs of its last step."""
        raise NotImplementedError

    def metric_names(self) -> set[str]:
        """Return the names in the logs that belong to metrics."""
        raise NotImplementedError


class SystemBase(Learner):
    """The learner of a system of several models.

    Attributes:
        nested: the systems among the members.
        with_losses: the members that have a loss, their own or one from `compile`.
        layer_losses: what has losses of layers that count in the system itself.
    """

    # Known until the next configuration.
    nested: Mapping[str, Any]
    with_losses: Mapping[str, Any]
    layer_losses: Any


class CopyBase(Learner):
    """The learner of a copy that follows another model and is not trained."""

    def averaged_state(self) -> list[Any]:
        """Return the averages that a call in training mode changes."""
        raise NotImplementedError


def of(layer: Any) -> Learner | None:
    """Return the learner of a model of this library. None for any other layer."""
    found: Learner | None = vars(layer).get("_mlsystem")
    return found


def made() -> list[str]:
    """Return the classes of all models of this library that exist."""
    return sorted({type(learner.model).__name__ for learner in _made})


def is_system(layer: Any) -> bool:
    """Return whether a layer is a system of this library."""
    return isinstance(of(layer), SystemBase)


def is_copy(layer: Any) -> bool:
    """Return whether a layer is a copy that follows another model."""
    return isinstance(of(layer), CopyBase)


def variables_once(variables: Iterable[Any]) -> list[Any]:
    """Return the variables, each once."""
    return list({id(variable): variable for variable in variables}.values())


def not_set_up(name: str) -> ValueError:
    """Return the error for a step of a system that is not set up."""
    return ValueError(f"'{name}' is not set up. Call `setup(data)` before you call its steps.")

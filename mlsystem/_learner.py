"""What the library keeps of one model, beside what Keras keeps: `model._mlsystem`.

This is the only attribute that the library sets on a user's model. Its parts are made whole at one
place and replaced whole. Two kinds of learner say what differs: a model alone (`models/one_model`)
and a system (`models/many_models`).
"""

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any


@dataclass(frozen=True)
class Given:
    """What the constructor and `compile` got. `optimized` is what a file says of optimizers."""

    loss: Any = None
    optimizer: Any = None
    metrics: Any = None
    weighted_metrics: Any = None
    loss_weights: Any = None
    auto_scale_loss: bool = True
    jit_compile: Any = "auto"
    optimized: Mapping[str, list[int]] = field(default_factory=dict)


@dataclass(frozen=True)
class Role:
    """The place of a model in the system that trains it: its name and optimizer there."""

    key: str = ""
    optimizer: Any = None
    has_name: bool = True  # one that the user gave, and not that of an attribute


@dataclass(frozen=True)
class Wiring:
    """The members of a system, and the losses and metrics that `compile` gave to them."""

    direct: Mapping[str, Any]
    nested: Mapping[str, Any]
    losses: Mapping[str, Any]
    metrics: Mapping[str, Any]


@dataclass(frozen=True)
class Setup:
    """What training needs to know of a model whose weights are built.

    `members` are the models by name, the leaves of a system, and `copies` those of them that follow
    others. `weights` are all weights that may be frozen and unfrozen.
    """

    weights: Sequence[Any]
    members: Mapping[str, Any]
    copies: Sequence[Any] = ()
    phases: Sequence[Sequence[str]] = ()
    turns: Mapping[str, Any] = field(default_factory=dict)
    conditions: Mapping[str, Any] = field(default_factory=dict)


@dataclass(frozen=True)
class KnownLosses:
    """The names of the losses of the last training step, and of the parts they are sums of."""

    names: Sequence[str] = ()
    parts: Sequence[str] = ()


@dataclass
class Compiled:
    """What is known of the compiled steps, so that they are made again only where they must.

    Attributes:
        rehearsed: the shapes that each step was rehearsed on.
        transforms: the transform in each step.
        made_from: what the steps hold of attributes and methods, `restless` what of that changes by
            itself, `hasty` the calls in a row before which it changed. See `fingerprint`.
        changes: how often a number in an attribute has changed.
        trained: whether each weight was trained when the step at hand was made.
        reached: the weights, by id, that some loss was found to reach.
        warned: what the user was warned of, by model.
        due: the models updated on this batch; None for all.
        batches: the number of batches seen, as far as the host knows.
        shown: the logs of the epoch so far.
        cache: what is the same in each step of one call, by what it is: rows, metrics, state.
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
    cache: dict[Any, Any] = field(default_factory=dict)

    def reset(self) -> None:
        """Forgets what a new configuration may change."""
        for known in (self.rehearsed, self.warned, self.reached, self.cache):
            known.clear()


class Learner:
    """What trains one model. The Keras model itself is `model`.

    Attributes:
        arguments: those of the constructor by name; None where some have no names.
        given, role, wiring, setup, known, compiled: see their classes. `wiring` and `setup` are
            None until the model is set up.
        step: the step that is running; None outside of one.
        call: the call of `fit`, `evaluate` or their kin in progress; None outside of one.
        logs: the running means.
        losses: what the losses of the forward pass in progress tell each other.
        symbols: the shapes of the batch that the weights were built from.
        data: what the model's own method `data` returned.
        condition: the `when` of the update in progress, a boolean tensor.
        told: the names that the user was told are not read.
    """

    shuffles_anew = False  # whether the order of arrays is drawn anew in each epoch, by us

    def __init__(self, model: Any, logs: Any, losses: Any) -> None:
        self.model, self.logs, self.losses = model, logs, losses
        self.arguments: dict[str, Any] | None = None
        self.given, self.role, self.known = Given(), Role(), KnownLosses()
        self.wiring: Wiring | None = None
        self.setup: Setup | None = None
        self.call: Any = None
        self.step: Any = None
        self.compiled = Compiled()
        self.symbols: Any = None
        self.data: Any = None
        self.condition: Any = None
        self.told: set[str] = set()

    def reset(self) -> None:
        """Starts over with a new configuration."""
        self.wiring = self.setup = None
        self.known = KnownLosses()
        self.compiled.reset()

    @property
    def name(self) -> str:
        """The name of the model."""
        name: str = self.model.name
        return name

    @property
    def ready(self) -> Setup:
        """The setup, where a step needs it."""
        if self.setup is None:
            raise ValueError(
                f"'{self.name}' is not set up. Call `setup(data)` before you call its steps."
            )
        return self.setup

    @property
    def optimizers(self) -> Mapping[str, Any]:
        """The optimizer of each model that is trained."""
        found: Mapping[str, Any] = self.model.optimizers
        return found

    def once(self, what: Any, find: Callable[[], Any]) -> Any:
        """What is the same in each step of a call, found once."""
        if self.setup is None:
            return find()
        if what not in self.compiled.cache:
            self.compiled.cache[what] = find()
        return self.compiled.cache[what]

    # Before the first step -------------------------------------------------------------------

    def ensure_compiled(self) -> None:
        """Compiles the model where nobody has."""
        raise NotImplementedError

    def finish_build(self) -> None:
        """Makes optimizers and all else that needs weights; sets `setup`."""
        raise NotImplementedError

    def retrain(self) -> None:
        """Sees to weights that were frozen or unfrozen."""
        raise NotImplementedError

    # Who learns from what --------------------------------------------------------------------

    def models(self) -> dict[str, Any]:
        """The models that are trained, by name."""
        raise NotImplementedError

    def known_models(self) -> list[str]:
        """The names of the models that are trained, or would be if they were not frozen."""
        return list(self.models())

    def phases(self) -> Sequence[Sequence[str]]:
        """The models of each phase."""
        return [list(self.models())]

    def rows(self, losses: Sequence[str]) -> dict[str, Any]:
        """Which of the losses each model follows, with which weights."""
        raise NotImplementedError

    @property
    def balance(self) -> Any:
        """What balances the losses, if anything does."""
        return None

    # What a step does ------------------------------------------------------------------------

    def has_loss(self) -> bool:
        """Whether the model has a loss of its own: a method, or one that was given."""
        raise NotImplementedError

    def compares_targets(self) -> bool:
        """Whether the loss is one that was given, between the model's own targets and outputs."""
        return False

    def counts_layer_losses(self) -> bool:
        """Whether the loss is that of an overridden `compute_loss`, which adds regularizers."""
        return False

    def find_losses(self, batch: Any, outputs: Any, training: bool) -> Any:
        """The losses of one forward pass, and their named terms: a `Taken`."""
        raise NotImplementedError

    def finite(self, gradients: Mapping[str, Any]) -> dict[str, Any]:
        """Whether those of each model are finite, boolean tensors; None where nobody asks."""
        return dict.fromkeys(gradients)

    def forward_state(self, is_conditional: bool) -> list[Any]:
        """The variables that are put back where the update of any of the models is skipped."""
        raise NotImplementedError

    def follow(self, updated: Mapping[str, Any]) -> None:
        """Moves the copies that follow some models, where these were updated."""

    def update_metrics(self, batch: Any, outputs: Any, updated: Mapping[str, Any] | None) -> None:
        """Updates the metrics of models that were updated, where they were, or of all."""
        raise NotImplementedError

    # State and logs --------------------------------------------------------------------------

    def state_variables(self) -> list[Any]:
        """All variables that a step may read or assign, each once."""
        raise NotImplementedError

    def counted_variables(self) -> list[Any]:
        """The variables of all that counts what happens in an update."""
        return list(self.model.metrics_variables)

    def batches_seen(self) -> Any:
        """The number of batches before this one."""
        return self.model.optimizer.iterations

    def to_logs(self, step: Any) -> None:
        """Moves the losses of a step into the running means."""
        raise NotImplementedError

    def close_step(self, step: Any) -> None:
        """Ends a step: its losses go to the logs, and the batch is counted."""
        self.to_logs(step)

    def epoch_logs(self, logs: dict[str, Any]) -> dict[str, Any]:
        """The logs of an epoch, given those of its last step."""
        raise NotImplementedError

    def metric_names(self) -> set[str]:
        """The names in the logs that belong to metrics."""
        raise NotImplementedError


class SystemLearner(Learner):
    """What trains a system of several models."""


class CopyLearner(Learner):
    """What stands for a copy that follows another model, and is not trained."""

    def averaged_state(self) -> list[Any]:
        """The averages that a call in training mode moves."""
        raise NotImplementedError


def of(layer: Any) -> Learner | None:
    """What trains a model of this library; None for any other layer."""
    found: Learner | None = vars(layer).get("_mlsystem")
    return found


def is_system(layer: Any) -> bool:
    """Whether a layer is a system of this library."""
    return isinstance(of(layer), SystemLearner)


def is_copy(layer: Any) -> bool:
    """Whether a layer is a copy that follows another model."""
    return isinstance(of(layer), CopyLearner)


def variables_once(variables: Iterable[Any]) -> list[Any]:
    """Variables, each once."""
    return list({id(variable): variable for variable in variables}.values())

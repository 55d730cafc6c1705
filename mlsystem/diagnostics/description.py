"""`Description`: the facts of a system that its picture and its explanation show. Plain Python."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

TRAINED, FROZEN, COPY = "trained", "frozen", "copy"
NOISE = "noise"


@dataclass(frozen=True)
class ModelFacts:
    """One model of a system.

    Attributes:
        name: the path of the model, such as `critics/0` or `vae/encoder`.
        kind: TRAINED, FROZEN or COPY (a moving average of another model).
        weights, trained: the number of weights, and of trained weights.
        optimizer: class, rate and schedule, such as "Adam 2e-4, CosineDecay".
        source: the model that a copy follows.
        momentum: the momentum of a copy, as text.
        badges: when the model is updated, if not on every batch.
        calls: how often one forward pass calls the model.
    """

    name: str
    kind: str = TRAINED
    weights: int = 0
    trained: int = 0
    optimizer: str = ""
    source: str = ""
    momentum: str = ""
    badges: Sequence[str] = ()
    calls: int = 1


@dataclass(frozen=True)
class LossFacts:
    """One loss: its named terms, and the models and inputs from which it is computed."""

    name: str
    terms: Sequence[str] = ()
    models: Sequence[str] = ()
    inputs: Sequence[str] = ()


@dataclass(frozen=True)
class Route:
    """A model follows a loss.

    Attributes:
        loss, model: their names.
        weight: the present weight as text, such as "× 0.1".
        is_negative: whether the model follows the loss with a negative weight.
        moves: what moves the weight, such as "PolynomialDecay". "" for a number.
        norm: the measured norm of the gradient, without the weight. None if it is not measured.
    """

    loss: str
    model: str
    weight: str = "× 1"
    is_negative: bool = False
    moves: str = ""
    norm: float | None = None

    @property
    def is_dead(self) -> bool:
        """Whether a measurement found no gradient."""
        return self.norm == 0


@dataclass(frozen=True)
class CallFacts:
    """One call of a model in `forward`: where its inputs come from, and the outputs it becomes."""

    model: str
    sources: Sequence[str] = ()
    outputs: Sequence[str] = ()


@dataclass(frozen=True)
class Description:
    """A system, in the order of its `forward`.

    Attributes:
        title: the name of the system's class.
        routing: the routing in a word: `"own"`, `"sum"` or `table`.
        models: the models in the order in which `forward` calls them.
        losses: the losses.
        routes: which model follows which loss.
        calls: the calls of models in `forward`. Empty if `forward` cannot be followed.
        edges: pairs of a source (a model, an input or `noise`) and a model that it feeds.
        frames: the nested systems.
        phases: for each phase, the numbers of equal phases in a row and the models.
        backward_passes: the number of backward passes on one batch.
        compiled: how the step is compiled.
        notes: other facts, such as the balance of the losses.
    """

    title: str
    routing: str = ""
    models: Sequence[ModelFacts] = ()
    losses: Sequence[LossFacts] = ()
    routes: Sequence[Route] = ()
    calls: Sequence[CallFacts] = ()
    edges: Sequence[tuple[str, str]] = ()
    frames: Sequence[str] = ()
    phases: Sequence[tuple[str, Sequence[str]]] = ()
    backward_passes: int = 0
    compiled: str = ""
    notes: Sequence[str] = ()
    by_name: Mapping[str, ModelFacts] = field(init=False, repr=False)

    def __post_init__(self) -> None:
        object.__setattr__(self, "by_name", {model.name: model for model in self.models})

    @property
    def is_measured(self) -> bool:
        """Whether the routes have measured norms."""
        return any(route.norm is not None for route in self.routes)

    @property
    def forward_passes(self) -> int:
        """The number of forward passes on one batch, one per phase."""
        last = self.phases[-1][0] if self.phases else "1"
        return int(last.split("–")[-1])

    def feeds(self, model: str) -> list[str]:
        """Return the sources of a model's inputs, in order."""
        return [source for source, target in self.edges if target == model]

    def followed(self, model: str) -> list[Route]:
        """Return the routes into a model."""
        return [route for route in self.routes if route.model == model]

    def followers(self, loss: str) -> list[Route]:
        """Return the routes out of a loss."""
        return [route for route in self.routes if route.loss == loss]

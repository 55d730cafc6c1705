"""The texts in the boxes of a picture."""

from collections.abc import Sequence

from mlsystem.diagnostics import wording
from mlsystem.diagnostics.description import COPY, FROZEN, Description, LossFacts, ModelFacts, Route


def model_lines(model: ModelFacts) -> list[str]:
    """Return the lines below the name of a model.

    >>> model_lines(ModelFacts("critic", weights=1200, trained=1200, optimizer="Adam 2e-4"))
    ['1.2 k weights', 'Adam 2e-4']
    """
    return [weights(model), *how_it_learns(model)]


def weights(model: ModelFacts) -> str:
    """Return how many weights a model has, how many of them are trained, and how often it runs."""
    number = wording.count(model.weights) if model.weights else "no"
    said = [f"{number} weight{'' if model.weights == 1 else 's'}"]
    if 0 < model.trained < model.weights:
        said.append(f"{wording.count(model.trained)} trained")
    if model.calls > 1:
        said.append(f"{model.calls} calls")
    return ", ".join(said)


def how_it_learns(model: ModelFacts) -> list[str]:
    """Return the optimizer of a model, or what else changes its weights."""
    if model.kind == COPY:
        return [f"EMA of {model.source}", f"momentum {model.momentum}"]
    if model.kind == FROZEN:
        return ["frozen"] if model.weights else []
    return [model.optimizer] if model.optimizer else []


def loss_lines(loss: LossFacts) -> list[str]:
    """Return the lines below the name of a loss: its terms, and the data that it reads.

    >>> loss_lines(LossFacts("critic", ["real", "fake"], inputs=["y"]))
    ['real + fake', 'reads y']
    """
    terms = [" + ".join(loss.terms)] if loss.terms else []
    return [*terms, *([f"reads {', '.join(loss.inputs)}"] if loss.inputs else [])]


def pill_text(route: Route, bundled: int = 1) -> str:
    """Return the label of a route: its weight, and the measured norm."""
    now = " now" if route.moves else ""
    norm = "" if route.norm is None else f" · {wording.value(route.norm)}"
    return f"{'' if bundled == 1 else f'{bundled} losses '}{route.weight}{now}{norm}"


def subtitle(facts: Description) -> list[str]:
    """Return what holds for the whole system, in parts.

    >>> subtitle(Description("GAN", routing='"own"', backward_passes=2))
    ['routing "own"', '1 forward pass', '2 backward passes']
    """
    backward, forward = facts.backward_passes, facts.forward_passes
    return [
        *([f"routing {facts.routing}"] if facts.routing else []),
        *([_counted(forward, "forward pass")] if facts.routing else []),
        *([_counted(backward, "backward pass")] if backward and facts.routing else []),
        *facts.notes,
    ]


def _counted(number: int, what: str) -> str:
    return f"{number} {what}" if number == 1 else f"{number} {what}es"


def phase_names(facts: Description) -> Sequence[str]:
    """Return the headings of the phases. Empty if there is one phase."""
    return [f"phase {number}" for number, _ in facts.phases] if len(facts.phases) > 1 else []

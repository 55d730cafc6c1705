"""The conditions of an update, decided inside the compiled step: `when` and `update_when`."""

import contextlib
from collections.abc import Callable, Iterator, Mapping
from typing import Any

from mlsystem import engine, routing, select, step


@contextlib.contextmanager
def gate(learner: Any, when: Any) -> Iterator[None]:
    """Lets what happens inside change weights, optimizers and metrics only `when`."""
    this = step.of(learner)
    if when is None:
        yield
        return
    condition = select.scalar(when, "The condition `when` given to update")
    if this:
        this.gate = condition
    try:
        with select.only(condition, learner._gated_variables(), engine.chosen.kept):
            yield
    finally:
        if this:
            this.gate = None


def ask(name: str, condition: Callable[[Any], Any], losses: Mapping[str, Any]) -> Any:
    """Whether a model is to be updated, by its function of the losses in `update_when`."""
    try:
        wanted = condition(losses)
    except KeyError as error:
        raise ValueError(
            f"update_when of '{name}' asks for the loss {error}, which does not exist. "
            f"{routing.listing(losses)}"
        ) from error
    if wanted is None:
        raise ValueError(f"update_when of '{name}' returned None. Does it end in a `return`?")
    return select.scalar(wanted, f"The condition that update_when gives for '{name}'")

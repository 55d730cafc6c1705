"""`when` and `update_when`: update only where a condition holds."""

import contextlib
from collections.abc import Callable, Iterator, Mapping
from typing import Any

from mlsystem._errors import named_in_errors
from mlsystem._learner import Learner
from mlsystem.engine import engine, select
from mlsystem.step import replica_means


@contextlib.contextmanager
def when(learner: Learner, given: Any) -> Iterator[None]:
    """Update, and log anything inside, only if a condition holds."""
    if given is None:
        yield
        return
    kept = engine.kept
    condition = select.scalar(given, "The condition `when` given to update")
    learner.condition = kept(replica_means.all_true(condition))
    before = [(variable, kept(variable.value)) for variable in learner.counted_variables()]
    try:
        yield
        select.keep(learner.condition, before, engine.changed)
    finally:
        learner.condition = None


def ask(name: str, condition: Callable[[Any], Any], losses: Mapping[str, Any]) -> Any:
    """Return the condition for updating a model, from its function in `update_when`."""
    with named_in_errors(f"update_when of '{name}'", losses=losses):
        wanted = condition(losses)
    if wanted is None:
        raise ValueError(f"update_when of '{name}' returned None. Does it end in a `return`?")
    return select.scalar(wanted, f"The condition that update_when gives for '{name}'")

"""Record with which arguments a system calls its members, in a run whose effects are discarded."""

import functools
from typing import Any

from mlsystem import _learner
from mlsystem._learner import Learner
from mlsystem.diagnostics.dry_run import discarded, made_up_batch, watched
from mlsystem.routing import members
from mlsystem.step.forward import call_forward

Call = tuple[tuple[Any, ...], dict[str, Any]]


def recorded(learner: Learner) -> tuple[dict[str, Call], Exception | None]:
    """Run `forward` on made-up data, and return the arguments of the first call of each member.

    A member that `forward` does not call has none. A copy is called as its source is. If `forward`
    fails, the calls before are known, and the error is returned too.
    """
    calls: dict[str, Call] = {}
    batch, watching = made_up_batch(learner), functools.partial(_recording, calls)
    with discarded(learner), watched(_layers(learner), watching):
        try:
            call_forward(learner, batch, training=False)
        except Exception as error:
            return calls, error
    return calls, None


def _layers(learner: Learner) -> list[tuple[str, Any]]:
    """Return the layers to watch, each with the name of its member."""
    found = [(n, m) for n, m in learner.members().items() if not isinstance(m, members.Own)]
    return found + [(name, m.source) for name, m in found if _learner.is_copy(m)]


def _recording(calls: dict[str, Call], name: str, call: Any) -> Any:
    """Return the method `call` of a member, which records its first call."""

    @functools.wraps(call)
    def recording(*args: Any, **kwargs: Any) -> Any:
        calls.setdefault(name, (args, kwargs))
        return call(*args, **kwargs)

    return recording

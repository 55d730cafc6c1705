"""Find which model feeds which, from dry runs of `forward` whose effects are discarded.

The first run keeps the outputs of each model. Each later run gives the kept outputs, except that
the values of one source (a model or an input) are NaN. The model inputs and losses that change
depend on this source. Since models give kept outputs, the dependence is direct. Whole numbers, such
as classes, have the range that they had in the batch of `setup`, and no NaN: each becomes another.
"""

import contextlib
import inspect
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np
from keras import tree

from mlsystem._learner import Learner
from mlsystem.data.batch import Batch, mapped
from mlsystem.diagnostics.description import NOISE, CallFacts
from mlsystem.diagnostics.dry_run import discarded, made_up_batch
from mlsystem.diagnostics.recording import Run, numbers, recording, spoiled_value
from mlsystem.engine.variable_scope import Scope
from mlsystem.routing import members
from mlsystem.step.forward import call_forward
from mlsystem.step.loss_values import LossValues


@dataclass(frozen=True)
class Dataflow:
    """What the dry runs found.

    Attributes:
        calls: the calls of models in one forward pass, in order.
        losses: for each loss, the models and the inputs that it depends on.
        taken: the losses of the first run. None if they could not be computed.
    """

    calls: Sequence[CallFacts] = ()
    losses: Mapping[str, Sequence[str]] = field(default_factory=dict)
    taken: LossValues | None = None


def dataflow(learner: Learner) -> Dataflow:
    """Follow the tensors through `forward` and the losses. Empty if `forward` cannot run."""
    batch = made_up_batch(learner)
    kept: dict[tuple[str, int], Any] = {}
    first = _tried(learner, batch, kept)
    if first is None:
        return Dataflow()
    changed = {name: _changed(first, run) for name, run in _runs(learner, batch, kept, first)}
    calls = [_call(first, i, changed) for i in _shown(first)]
    losses = list(first.taken.losses) if first.taken else []
    found = {n: [s for s in changed if s != NOISE and n in changed[s][1]] for n in losses}
    return Dataflow(calls, found, first.taken)


def _shown(run: Run) -> list[int]:
    """Return the calls in `forward`, and those in the losses of models that it does not call.

    A loss may call a model inside `ml.grad`, which not every backend lets us see.
    """
    in_forward = {name for name, _ in run.calls[: run.in_forward]}
    later = range(run.in_forward, len(run.calls))
    return [*range(run.in_forward), *(i for i in later if run.calls[i][0] not in in_forward)]


def _runs(
    learner: Learner, batch: Batch, kept: dict[tuple[str, int], Any], first: Run
) -> Iterator[tuple[str, Run | None]]:
    """Yield one more run for each source: models, the system's own weights, inputs and noise."""
    for name in dict.fromkeys(name for name, _ in first.calls):
        yield name, _tried(learner, batch, kept, spoiled=name)
    for name, member in learner.members().items():
        if isinstance(member, members.Own):
            yield name, _tried(learner, batch, kept, own=member.weights)
    for name, other in _spoiled_inputs(learner, batch):
        yield name, _tried(learner, other, kept)
    yield NOISE, _tried(learner, batch, kept, repeats=2)


def _spoiled_inputs(learner: Learner, batch: Batch) -> Iterator[tuple[str, Batch]]:
    """Yield each input and target by name, with a batch in which it is spoiled."""
    for part, name in (("x", _first_argument(learner)), ("y", "y")):
        structure = getattr(batch, part)
        for path, leaf in [] if structure is None else tree.flatten_with_path(structure):
            if leaf is not None:
                spoiled = mapped(_only_spoiled(leaf), structure)
                yield _path_name(name, path), replace(batch, **{part: spoiled})


def _only_spoiled(leaf: Any) -> Callable[[Any], Any]:
    return lambda value: spoiled_value(value) if value is leaf else value


def _first_argument(learner: Learner) -> str:
    return next(iter(inspect.signature(learner.model.call).parameters), "x")


def _path_name(name: str, path: Sequence[Any]) -> str:
    """Name a part of the data: a key by itself, a position after the argument."""
    if path and isinstance(path[0], str):
        return "/".join(map(str, path)) if name != "y" else "/".join(["y", *map(str, path)])
    return "/".join([name, *map(str, path)])


# One run ------------------------------------------------------------------------------------


def _tried(
    learner: Learner,
    batch: Batch,
    kept: dict[tuple[str, int], Any],
    spoiled: str = "",
    own: Sequence[Any] = (),
    repeats: int = 1,
) -> Run | None:
    """Run `forward` and the losses, and discard all effects. None if `forward` fails."""
    with discarded(learner), Scope([(weight, spoiled_value(weight.value)) for weight in own]):
        for _ in range(repeats):
            run = Run()
            try:
                with recording(learner, run, kept, spoiled):
                    outputs = call_forward(learner, batch, training=True, phase=0)
                    run.outputs, run.in_forward = outputs, len(run.calls)
                    with contextlib.suppress(Exception):
                        run.taken = learner.find_losses(batch, outputs, True)
            except Exception:
                return None
        return _asnumbers(run)


def _asnumbers(run: Run) -> Run:
    if run.taken is not None:
        losses = {name: numbers(value) for name, value in run.taken.losses.items()}
        run.taken = replace(run.taken, losses=losses)
    return run


# Compare runs -------------------------------------------------------------------------------


def _changed(first: Run, other: Run | None) -> tuple[dict[int, Sequence[Any]], set[str]]:
    """Return the calls that differ between two runs, each with what differs, and the losses."""
    if other is None:
        return {}, set()
    pairs = enumerate(zip(first.calls, other.calls, strict=False))
    calls = {i: _different(one, two) for i, ((_, one), (_, two)) in pairs}
    one, two = (run.taken.losses if run.taken else {} for run in (first, other))
    losses = {name for name in one if name in two and _different(one[name], two[name])}
    return {i: found for i, found in calls.items() if found}, losses


def _different(one: Any, two: Any) -> Sequence[Any]:
    """Return for each array which of its elements differ. Empty if none does."""
    if one is None or two is None or len(one) != len(two):
        return ()
    found = [_elements(a, b) for a, b in zip(one, two, strict=True)]
    return found if any(array.any() for array in found) else ()


def _elements(a: Any, b: Any) -> Any:
    """Return which elements of two arrays differ. NaN equals NaN."""
    if a.shape != b.shape:
        return np.ones(a.shape, bool)
    return (a != b) & ~((a != a) & (b != b))


def _call(first: Run, i: int, changed: Mapping[str, Any]) -> CallFacts:
    """Return one call with its sources. Noise counts if a part of the input is noise alone.

    The part may be an array of its own, or be joined to others: `concatenate([noise, labels])`.
    """
    found = {name: calls[i] for name, (calls, _) in changed.items() if i in calls}
    is_noisy = _has_own(found.pop(NOISE, ()), list(found.values()))
    made = {id(leaf) for leaf in first.made[i]}
    outputs = tree.flatten_with_path(first.outputs)
    names = ["/".join(map(str, path)) for path, leaf in outputs if id(leaf) in made and path]
    return CallFacts(first.calls[i][0], [*found, *([NOISE] if is_noisy else [])], names)


def _has_own(arrays: Sequence[Any], others: Sequence[Sequence[Any]]) -> bool:
    """Return whether some elements change that no other source changes."""
    known = [np.any([other[k] for other in others], axis=0) for k in range(len(arrays))]
    return any((mine & ~other).any() for mine, other in zip(arrays, known, strict=True))

"""Export the members of a system: one call, one folder, one manifest."""

import warnings
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from mlsystem._learner import Learner
from mlsystem.diagnostics.gradient_measurement import without_effects
from mlsystem.engine import engine
from mlsystem.engine.distribution import first_process
from mlsystem.export import comparison, formats, inputs, manifest, other_backend, writing
from mlsystem.export import folder as folders
from mlsystem.export.formats import Format
from mlsystem.export.served_model import ServedModel
from mlsystem.export.writing import Written
from mlsystem.routing import members, model_names


def export(
    learner: Learner, folder: Any, format: str, models: Any = None, check: bool = True
) -> dict[str, Any]:
    """Export the members of a system. See `MLSystem.export`."""
    if not isinstance(check, bool):
        raise ValueError(f"export got check={check!r}; give True or False.")
    wanted = formats.find(format)
    path = folders.checked(folder)
    chosen = _chosen(learner, models)
    backends = formats.writers(wanted)
    models = inputs.served(learner, chosen, wanted)
    with without_effects(learner), engine.discarding(learner.model):
        served = [comparison.observed(one) for one in models]
    if not first_process.is_here():
        return {}
    with folders.replacing(path) as new:
        written = _written(served, wanted, new, check, backends)
        found = manifest.write(new, served, wanted, written)
    if check and (unchecked := [n for n, w in written.items() if w.checks[n] is None]):
        _warn_of(unchecked, wanted)
    return found


def _chosen(learner: Learner, models: Any) -> dict[str, Any]:
    """Return the members to export, by name."""
    known = learner.members()
    if learner.symbols is None or not known:
        raise ValueError(
            f"'{learner.name}' is not set up. Call `fit` or `setup(data)` before you export it."
        )
    if models is None:
        names = [name for name, one in known.items() if not isinstance(one, members.Own)]
    else:
        names = model_names.resolve(models, list(known), f"models= of export of '{learner.name}'")
    if not names:
        raise ValueError(f"export got models={models!r}, which names no model.")
    if own := [name for name in names if isinstance(known[name], members.Own)]:
        raise ValueError(
            f"'{own[0]}' names the weights of '{learner.name}' itself, which are no model. Move "
            "them and what is computed with them into a model to export them."
        )
    return {name: known[name] for name in names}


def _written(
    served: Sequence[ServedModel], wanted: Format, new: Path, check: bool, backends: Sequence[str]
) -> dict[str, Written]:
    """Write each model on the first backend that can. Return by whom each was written."""
    done: dict[str, Written] = {}
    errors: dict[str, list[str]] = {one.name: [] for one in served}
    for backend in backends:
        left = [one for one in served if one.name not in done]
        if not left:
            break
        if backend == engine.name:
            result = writing.write_all(left, wanted, new, check)
        else:
            result = other_backend.write_all(left, wanted, new, check, backend)
        done |= dict.fromkeys(result.checks, result)
        for name, error in result.errors.items():
            errors[name].append(error)
    if failed := [one.name for one in served if one.name not in done]:
        raise ValueError(_failed({name: errors[name] for name in failed}, wanted))
    return done


def _failed(errors: dict[str, list[str]], wanted: Format) -> str:
    lines = [f"- '{name}': {'; '.join(found)}" for name, found in errors.items()]
    return "\n".join(
        [
            f"Export to the format '{wanted.name}' failed, and nothing was written.",
            *lines,
            "Try another format, or name the models that can be exported in models=.",
        ]
    )


def _warn_of(unchecked: Sequence[str], wanted: Format) -> None:
    warnings.warn(
        f"The files of {', '.join(unchecked)} were written but not checked: "
        f"{formats.pip_name(wanted.runtime)} is not installed. Run `python -m pip install "
        f"{formats.pip_name(wanted.runtime)}`, or pass check=False.",
        UserWarning,
        stacklevel=4,
    )

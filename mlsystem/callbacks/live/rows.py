"""`Row`: what `Live` shows of one model, or of a loss that belongs to no model."""

from dataclasses import dataclass, field

from mlsystem import _learner
from mlsystem._learner import Learner
from mlsystem.callbacks import validation_names
from mlsystem.callbacks.compact_logs import loss_logs
from mlsystem.callbacks.for_model import named_first
from mlsystem.callbacks.live.readings import Curve, Readings
from mlsystem.plot.colors import NEUTRAL, PALETTE, model_colors

# The ends of logs that have a column of their own, or that are no numbers of a model.
_OTHER = ("loss", "learning_rate", "skipped", "update_ratio")
_GRADIENT = "gradient_norm"  # alone, or with a loss as `GradientNorms` logs it


@dataclass
class Row:
    """The numbers of one model.

    Attributes:
        name: the name of the model or of the loss.
        color: the color of the model, as `#e07a1f`.
        loss: the name of its loss in the logs.
        value: the loss, None if it has none of its own.
        curve: the loss in the course of training.
        validation: the loss on each validation set, by its name or `""`, in the course of training.
        more: the terms of the loss, and the metrics, by name.
        rate: the learning rate.
        gradient: the norm of its gradient.
        ratio: the norm of the last update, divided by that of the weights.
        steps: the number of updates.
        skipped: the number of skipped updates.
        is_model: whether this is a model, not a loss that belongs to none.
    """

    name: str
    color: str = NEUTRAL
    loss: str = "loss"
    value: float | None = None
    curve: Curve = field(default_factory=list)
    validation: dict[str, Curve] = field(default_factory=dict)
    more: dict[str, float] = field(default_factory=dict)
    rate: float | None = None
    gradient: float | None = None
    ratio: float | None = None
    steps: int | None = None
    skipped: int = 0
    is_model: bool = True


def rows(readings: Readings) -> list[Row]:
    """Return a row for each model, and one for each loss that belongs to no model."""
    models = list(readings.learner.known_models())
    others = [name for name in _losses(readings.learner) if name not in models]
    found = [_of_model(readings, name) for name in models]
    found += [_of_loss(readings, name) for name in others]
    for row in found:
        row.color = readings.colors.get(row.name, NEUTRAL)
    return found


def colors(learner: Learner) -> dict[str, str]:
    """Return the color of each trained model, then of the losses of no model, as in pictures."""
    models, known = list(learner.models()), list(learner.known_models())
    others = [name for name in _losses(learner) if name not in known]
    return model_colors([*models, *others[: max(0, len(PALETTE) - len(models))]])


def _losses(learner: Learner) -> list[str]:
    """Return the names of the losses of a system."""
    is_system = _learner.is_system(learner.model)
    return [log.removesuffix("_loss") for log in loss_logs(learner)] if is_system else []


def _of_model(readings: Readings, name: str) -> Row:
    learner, latest = readings.learner, readings.latest
    row = _of_loss(readings, name if _learner.is_system(learner.model) else "")
    row.name, row.is_model = name, True
    row.more = _more(learner, name, latest)
    row.rate, row.steps = readings.rate(name), readings.updates(name)
    row.skipped = readings.skipped(name)
    of_own_loss = latest.get(f"{name}_{_GRADIENT}_{name}")
    row.gradient = latest.get(f"{name}_{_GRADIENT}", of_own_loss)
    row.ratio = latest.get(f"{name}_update_ratio")
    return row


def _of_loss(readings: Readings, name: str) -> Row:
    log, sets = f"{name}_loss" if name else "loss", validation_names.names(readings.learner.model)
    fronts = {"": "val_"} | {each: f"val_{each}_" for each in sets}
    validation = {
        n: readings.curves[f + log] for n, f in fronts.items() if f + log in readings.curves
    }
    return Row(
        name,
        loss=log,
        value=readings.latest.get(log),
        curve=readings.curves.get(log, []),
        validation=validation,
        is_model=False,
    )


def _more(learner: Learner, name: str, latest: dict[str, float]) -> dict[str, float]:
    """Return the terms and metrics of a model, by their names in it."""
    trained = {*learner.logs.owners, *learner.metric_names()}  # a model may be named `val_...`
    mine = {n: v for n, v in latest.items() if not n.startswith("val_") or n in trained}
    if _learner.is_system(learner.model):
        models = learner.known_models()
        mine = {log: value for log, value in mine.items() if named_first(log, models) == name}
    found = {log.removeprefix(f"{name}_"): value for log, value in mine.items()}
    return {n: v for n, v in found.items() if n not in _OTHER and not n.startswith(_GRADIENT)}

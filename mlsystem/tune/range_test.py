"""`learning_rate`: the learning rate range test, for each model of a system."""

import warnings
from typing import Any

import numpy as np

from mlsystem._learner import Learner
from mlsystem.tune import arguments, snapshot, suggestion
from mlsystem.tune.rate_curve import LearningRates, RateCurve
from mlsystem.tune.sweep import NOT_FINITE, Points, Sweep

_WHAT = "ml.tune.learning_rate"
_FEWEST = 5  # updates from which something can be read


def learning_rate(
    system: Any,
    data: Any = None,
    models: Any = None,
    between: tuple[float, float] = (1e-7, 1.0),
    steps: int = 100,
    others: str = "keep",
    *,
    batch_size: int | None = None,
) -> LearningRates:
    """Suggest a learning rate for each model, by the learning rate range test (Smith 2017).

    ```python
    found = ml.tune.learning_rate(gan, images, steps=40)
    print(found)
    found["generator"].rate
    found.apply()  # sets the rates of the optimizers
    ```

    Each model gets a sweep of its own: its learning rate grows exponentially from step to step. A
    sweep ends at 4 times the best loss (not in a game), at a step that is not finite, or at the
    last rate. Then weights, optimizers, counters, random generators, logs and the place in the data
    are put back, bit for bit. A later `fit` gives the same weights as without the sweep.

    The loss is compared with that of a second run on the same batches at the lowest rate, because
    the other models change it too. The suggestion is the rate in the middle of the fall of this
    difference, on the logarithmic scale.

    Where the loss does not fall, the suggestion is the rate at which an update has 0.01 of the size
    of the weights, as first updates of Adam often have. `source` and `reason` say which of the two
    it is.

    In a game, another model works against this loss, and its curve says little. Whether training
    converges is decided there by the rates of all players together (Heusel et al. 2017; Mescheder
    et al. 2017), and a sweep of one model cannot find them. `rate` is then by the size of an
    update, for comparison only: `rival` names the other player, and `apply()` keeps the present
    rate.

    The sweep trains on new batches, so a rate that is too high only later is not found. Source:
    Smith, "Cyclical Learning Rates for Training Neural Networks" (2017), arXiv:1506.01186. On
    games: Heusel et al., "GANs Trained by a Two Time-Scale Update Rule" (2017), arXiv:1706.08500,
    and Mescheder et al., "The Numerics of GANs" (2017), arXiv:1705.10461.

    Args:
        system: an `MLModel` or `MLSystem`. It is set up first if necessary.
        data: training data as in `fit`, or a tuple `(x, y)`. By default the data of the system. It
            is not a generator, which can be read only once.
        models: names of models, or of lists of models. By default all trained models.
        between: the lowest and the highest rate.
        steps: number of updates in a sweep, at most.
        others: what the other models do in a sweep. "keep": they train at their rates. "freeze":
            they have `trainable = False`, and another step is compiled.
        batch_size: batch size of arrays, as in `fit`.

    Returns:
        The suggested rates by model, each with its curves.

    Raises:
        TypeError: `system` is no model of this library.
        ValueError: a name is unknown, a learning rate follows a schedule, or an argument makes no
            sense. Weights have not changed then.
    """
    learner = arguments.learner_of(system, _WHAT)
    low, high = arguments.check_between(between, steps, others, _WHAT)
    given, part = arguments.of_fit(learner, data, batch_size, _WHAT)
    before = snapshot.take(system, given, part)
    names = arguments.chosen(learner, models, _WHAT)
    arguments.check_rates(learner, names)
    rates = [float(rate) for rate in np.geomspace(low, high, steps)]
    play: dict[str, str] | None = None if others == "freeze" else {}
    curves: dict[str, RateCurve] = {}
    for name in names:
        now = float(learner.optimizers[name].learning_rate)
        with before.put_back():
            looks, is_player = play is not None and not curves, name in (play or {})
            sweep = Sweep(name, rates, not is_player, play if looks else None)
            points = _swept(learner, sweep, given, others)
        with before.put_back():
            sweep = Sweep(name, [low] * len(points.rates), may_end=False)
            still = _swept(learner, sweep, given, others)
        curves[name] = _curve(name, now, points, still, (play or {}).get(name))
    return LearningRates(
        system,
        curves,
        f"Learning rates of '{learner.name}', by sweeps from {low:g} to {high:g}",
    )


def _swept(learner: Learner, sweep: Sweep, given: dict[str, Any], others: str) -> Points:
    """Run one sweep, which ends the `fit` itself."""
    if others == "freeze":
        for name, model in learner.models().items():
            if name != sweep.name:
                model.trainable = False
    with warnings.catch_warnings():  # a sweep looks for gradients that are not finite
        warnings.filterwarnings("ignore", "The gradient of .* is not finite")
        try:
            learner.model.fit(**given, callbacks=[sweep])
        except FloatingPointError:  # by nonfinite = "raise"
            sweep.points.end = NOT_FINITE
    points = sweep.points
    if len(points.losses) < _FEWEST:
        raise ValueError(
            f"{_WHAT} measured only {len(points.losses)} updates of '{sweep.name}'. {points.end} "
            "Give a lower `between`, or let the model be updated on more batches."
        )
    return points


def _curve(name: str, now: float, points: Points, still: Points, rival: str | None) -> RateCurve:
    """Return the curve of a model with its suggestion.

    The loss is compared with that of the same batches at the lowest rate. The difference has less
    noise, and leaves out what the training of the other models changes.
    """
    rates, ratios = np.array(points.rates), np.array(points.ratios)
    count = min(len(points.losses), len(still.losses))
    losses, base = np.array(points.losses[:count]), np.array(still.losses[:count])
    fall = suggestion.valley(rates[:count], losses - base)
    if fall is not None and rival is None:
        rate, source = fall, "loss"
        reason = "The rate is in the middle of the fall of its loss."
    else:
        rate, source = suggestion.at_ratio(rates, ratios), "update ratio"
        size = f"where an update is {suggestion.START_RATIO:g} of the weights"
        reason = f"Its loss fell by less than its noise, so the rate is {size}."
        if rival is not None:
            reason = (
                f"Its loss is part of a game, which '{rival}' moves too, and the rates of both "
                f"decide together. The rate is only a hint, {size}: `apply()` keeps {now:.2g}."
            )
    end = points.end
    return RateCurve(name, rate, source, reason, now, rates, losses, base, ratios, end, rival)

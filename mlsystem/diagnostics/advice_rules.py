"""The rules of `ml.callbacks.Advice`. Each takes numbers and returns a sentence or None.

The numbers are plain floats: measurements in their order, the newest last. A rule says what was
found, what it means, and what to try. Sources of the thresholds:

- `winner`: a discriminator whose loss goes to 0 is a failure to watch for, by Chintala et al., "How
  to Train a GAN?", https://github.com/soumith/ganhacks. A perfect discriminator leaves the
  generator without a gradient: Arjovsky and Bottou, https://arxiv.org/abs/1701.04862. The factors
  are ours.
- `collapsed`: Salimans et al., https://arxiv.org/abs/1606.03498 (minibatch discrimination), and
  Odena et al., https://arxiv.org/abs/1610.09585 (similarity of samples), compare samples with each
  other to find collapse. The 90 % and 2 % are ours.
- `update_ratio`: about 0.001 is usual, by the notes of Stanford's course CS231n,
  https://cs231n.github.io/neural-networks-3/#ratio. The limits are 100 times away from that.
- `dead_route` and `stalled` have no source. The 1 % and 10 % are ours.
"""

import math
from collections.abc import Sequence

Values = Sequence[float]
_USUAL_RATIO = 1e-3
_SAME = 0.01  # a loss that moves less than this share of its value does not move
_ALIKE = 0.02  # samples nearer to each other than this share of their size are alike
_MOVED = 0.1  # a loss that differs from its first value by this share has moved before


def winner(
    names: tuple[str, str],
    losses: tuple[Values, Values],
    norms: Values,
    near_zero: float = 0.1,
    fall: float = 50,
    looks: int = 3,
) -> str | None:
    """Advise on a model that has won against another, which then learns nothing.

    The rule holds if all of this is true in each of the last measurements:

    - The loss of the first model is below `near_zero`, and below a tenth of its first value.
    - The gradient of the other model is `fall` times smaller than at its largest.
    - The loss of the other model is not smaller than at first. Two models that have both converged
      get no advice.

    Args:
        names: the names of the model that may have won, and of the other.
        losses: their losses.
        norms: the norm of the gradient of the other model's loss in that model.
        near_zero: the limit of the loss of the winner.
        fall: how many times smaller the gradient has become.
        looks: number of measurements in a row.
    """
    (won, lost), (own, other) = names, losses
    if len(own) <= looks or not _all_finite(own, other, norms):
        return None
    limit, top = min(near_zero, 0.1 * abs(own[0])), max(norms)
    is_won = all(abs(value) < limit for value in own[-looks:])
    is_lost = all(norm * fall < top for norm in norms[-looks:])
    if not is_won or not is_lost or min(other[-looks:]) < other[0]:
        return None
    often = f"{top / norms[-1]:.0f}-fold" if norms[-1] else "to zero"
    return (
        f"'{won}' wins: its loss fell from {own[0]:.3g} to {own[-1]:.2g}, and the gradient of "
        f"'{lost}' fell {often}. '{lost}' has almost nothing left to learn from. Update '{won}' "
        f'only while it loses: update_when = {{"{won}": lambda losses: losses["{won}"] > '
        f"{_rounded(abs(own[0]) / 3)}}}. Or lower its learning rate."
    )


def collapsed(distances: Values, sizes: Values, fall: float = 0.9) -> str | None:
    """Advise on samples that have become alike.

    The rule holds if the newest distance is below `1 - fall` of the largest one, and below 2 % of
    the size of the newest samples. Samples of data of a small spread come nearer to each other too,
    but not that near. Data whose own spread is below 2 % of its size cannot be told from collapse.
    Nor can a collapse to near zero from data of that scale: it gets no advice.

    Args:
        distances: the mean distance between the samples of a set, for each set.
        sizes: the size of the samples: the root of their mean squared norm, for each set.
        fall: the share by which the distance has fallen.
    """
    if len(distances) < 2 or not _all_finite(distances, sizes):
        return None
    top, now = max(distances), distances[-1]
    if not now < (1 - fall) * top or now > _ALIKE * sizes[-1]:
        return None
    return (
        f"The samples have collapsed: the mean distance between two of them fell from {top:.3g} to "
        f"{now:.2g} ({1 - now / top:.0%} less). The model now makes nearly the same sample from "
        "any noise. Go back to an earlier checkpoint and lower the learning rates. Or let the "
        "discriminator compare the samples of a batch, or use a Wasserstein loss with a gradient "
        "penalty."
    )


def dead_route(
    losses: Sequence[str],
    model: str,
    norms: Values,
    is_expected: bool = True,
    has_table: bool = True,
    looks: int = 3,
) -> str | None:
    """Advise on losses that a model follows without getting a gradient from them.

    The rule holds if the gradient was zero in each of the last measurements.

    Args:
        losses: the names of the losses. Several share one sentence.
        model: the name of a model that follows them.
        norms: the norm of the gradient of the loss in the model, the largest of several losses.
        is_expected: whether the loss must reach the model. If not, the rule holds only for a route
            that had a gradient before. Under `routing = "sum"`, some losses do not reach a model.
        has_table: whether the routing is a table, which the loss can be taken out of.
        looks: number of measurements in a row.
    """
    was = max(norms, default=0.0)
    if len(norms) < looks or any(norm != 0 for norm in norms[-looks:]):
        return None
    if not is_expected and was == 0:
        return None
    names = " and ".join(f"'{loss}'" for loss in losses)
    which, them = (
        (f"the loss {names}", "it") if len(losses) == 1 else (f"the losses {names}", "them")
    )
    before = f", and was up to {was:.2g} before" if was else ""
    return (
        f"'{model}' gets no gradient from {which}: it was zero in the last {looks} "
        f"measurements{before}. '{model}' follows {them}, and learns nothing from {them}. "
        f"{_remedy(was > 0, names, model, has_table)}"
    )


def _remedy(was_alive: bool, names: str, model: str, has_table: bool) -> str:
    if was_alive:
        return (
            "Look for units that no longer react (ReLU with negative inputs, saturated sigmoids), "
            "and lower the learning rate."
        )
    route = f" Or take {names} out of the routing of '{model}'." if has_table else ""
    cuts = "Look for `stop_gradient`, `argmax`, rounding or a conversion to NumPy on the way."
    return cuts + route


def solved(values: Values, looks: int = 3) -> bool:
    """Return whether a loss has no gradient because it is at its minimum, as a hinge loss is.

    In the last measurements it is either about zero (1 % of its largest size), or has fallen to one
    number again and again, its smallest.
    """
    last, top = values[-looks:], max(map(abs, values), default=0.0)
    is_zero = all(abs(value) <= _SAME * top for value in last)
    return is_zero or all(value == min(values) < values[0] for value in last)


def update_ratio(
    model: str,
    ratios: Values,
    rate: float | None = None,
    may_be_small: bool = False,
    limits: tuple[float, float] = (1e-5, 1e-1),
    looks: int = 3,
) -> str | None:
    """Advise on a model whose steps are far too small or far too large for its weights.

    Measurements of zero do not count: the model was not updated then. Too large are the last
    measurements in a row above the upper limit, if the ratio is no longer falling. It falls at
    first where weights start at zero, as they consist of updates then. Too small are all
    measurements so far, so that a model that has converged gets no advice.

    Args:
        model: the name of the model.
        ratios: the norm of an update, divided by the norm of the weights.
        rate: the learning rate now.
        may_be_small: whether small steps are fine. A schedule may start or end with them, and a run
            that continues another may begin where the model has converged.
        limits: the lower and the upper limit.
        looks: number of measurements in a row.
    """
    moved = [ratio for ratio in ratios if ratio > 0]
    if len(moved) < looks or not _all_finite(moved):
        return None
    now = _middle(moved[-looks:])
    if min(moved[-looks:]) > limits[1] and not _is_falling(moved, looks):
        size, means, change = "large", "Training may diverge.", "Lower"
    elif max(moved) < limits[0] and not may_be_small:
        size, means, change = "small", "It hardly learns.", "Raise"
    else:
        return None
    return (
        f"The updates of '{model}' are far too {size}: a step changes its weights by {now:.1g} of "
        f"their norm, where about 0.001 is usual. {means} {change} its learning rate"
        f"{_suggested(rate, now)}."
    )


def _is_falling(values: Values, looks: int) -> bool:
    """Return whether values still fall, compared with those of half as many measurements.

    The ratio of weights that are the sum of `n` updates is 1/n for equal updates, and 1/sqrt(n) for
    random ones: half as many measurements have 2 or 1.4 times its value.
    """
    earlier = values[: (len(values) + 1) // 2][-looks:]
    return _middle(values[-looks:]) < 0.8 * _middle(earlier)


def _middle(values: Values) -> float:
    return sorted(values)[len(values) // 2]


def _suggested(rate: float | None, ratio: float) -> str:
    if not rate:
        return ""
    return f" from {rate:.2g} to about {rate * _USUAL_RATIO / ratio:.0e}"


def stalled(loss: str, values: Values, epochs: int = 5) -> str | None:
    """Advise on a loss that does not move.

    The rule holds if the loss stayed within 1 % over the last epochs, and is within 10 % of its
    first value. A loss that has moved by more and then stays has probably converged.

    Args:
        loss: the name of the loss.
        values: its mean in each epoch.
        epochs: number of epochs.
    """
    if len(values) < epochs or not _all_finite(values):
        return None
    last, size = values[-epochs:], abs(values[-1])
    if size == 0 or max(last) - min(last) > _SAME * size:
        return None
    if abs(values[0] - values[-1]) > _MOVED * abs(values[0]):
        return None
    return (
        f"The loss '{loss}' has not moved for {epochs} epochs: it is {values[-1]:.3g}, and was "
        f"{values[0]:.3g} in the first. The models that follow it learn nothing from it. See "
        "whether they can learn two batches, with fit(overfit=2). Then look at "
        "system.gradient_report(batch), at the learning rate and at the targets."
    )


def _all_finite(*series: Values) -> bool:
    return all(math.isfinite(value) for values in series for value in values)


def _rounded(value: float) -> str:
    return f"{value:.1g}"

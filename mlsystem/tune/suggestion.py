"""Suggest a learning rate from the curves of a sweep. Plain NumPy."""

import numpy as np

# The ratio of an update to the weights at the start of training. In the middle, about 0.001 is
# usual (https://cs231n.github.io/neural-networks-3/#ratio). First updates are larger: with Adam at
# 1e-3, a VAE and two GANs of examples/ have 0.007 to 0.03 in their first step, and train well.
START_RATIO = 1e-2
WORSE = 4.0  # a sweep ends where the smoothed loss is so many times the best


def smoothed(values: np.ndarray) -> np.ndarray:
    """Return centered running means, over a tenth of the values. Less than 20 stay as they are.

    >>> smoothed(np.array([0.0] * 10 + [3.0] * 10))[8:12].tolist()
    [0.0, 1.0, 2.0, 3.0]
    """
    most = len(values) // 20
    reach = [min(i, len(values) - 1 - i, most) for i in range(len(values))]
    return np.array([np.mean(values[i - r : i + r + 1]) for i, r in enumerate(reach)])


def valley(rates: np.ndarray, losses: np.ndarray) -> float | None:
    """Return the rate in the middle of the fall of the loss, on the logarithmic scale.

    The fall begins where the smoothed loss has fallen by a tenth of its whole fall, and ends at its
    lowest point. None if it falls by less than the noise of the loss.

    >>> rates = np.array([1e-4, 1e-3, 1e-2, 1e-1, 1.0])
    >>> round(valley(rates, np.array([1.0, 1.0, 0.9, 0.1, 5.0])), 3)
    0.01
    """
    if len(losses) < 3:
        return None
    smooth = smoothed(losses)
    end = int(np.argmin(smooth))
    top = float(np.max(smooth[: end + 1]))
    fall, noise = top - float(smooth[end]), float(np.std(losses[: end + 1] - smooth[: end + 1]))
    if end == 0 or fall <= noise:
        return None
    start = int(np.flatnonzero(smooth[: end + 1] >= top - 0.1 * fall)[-1])
    return float(np.sqrt(rates[start] * rates[end]))


def at_ratio(rates: np.ndarray, ratios: np.ndarray, wanted: float = START_RATIO) -> float:
    """Return the first rate at which the smoothed update ratio is `wanted`, between two points.

    It is an end of the rates if the ratio is always above, or always below.

    >>> round(at_ratio(np.array([1e-4, 1.0]), np.array([1e-3, 1e-1])), 6)
    0.01
    """
    logs = smoothed(np.log(np.maximum(ratios, 1e-30)))
    rising = np.maximum.accumulate(logs)
    return float(np.exp(np.interp(np.log(wanted), rising, np.log(rates))))


def is_worse(smooth: float, best: float, first: float) -> bool:
    """Return whether a loss is so bad that a sweep ends. A best loss may be 0 or negative.

    >>> is_worse(3.9, 1.0, 2.0), is_worse(4.1, 1.0, 2.0), is_worse(2.0, -1.0, 2.0)
    (False, True, False)
    """
    scale = best if best > 0 else max(-best, first - best)
    return smooth > best + (WORSE - 1) * scale

"""Short texts for numbers, optimizers, weights of losses, and conditions of updates."""

import math
import numbers
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from typing import Any

import keras
from keras import ops

from mlsystem import _keras
from mlsystem.routing.update_schedule import Turn

# The numbers of batches at which the sign of a weight that moves is looked up.
_TRIED = (1, 10, 100, 1_000, 10_000)


def count(number: int) -> str:
    """Return a number of weights in short.

    >>> [count(n) for n in (12, 1_500, 543_784, 25_600_000)]
    ['12', '1.5 k', '544 k', '25.6 M']
    """
    for size, unit in ((10**9, " G"), (10**6, " M"), (10**3, " k")):
        if number >= size:
            return f"{number / size:.3g}{unit}"
    return str(number)


def size(number: int) -> str:
    """Return a number of bytes in short.

    >>> [size(n) for n in (12, 1_536, 2**20, 3 * 2**30)]
    ['12 B', '1.5 KiB', '1 MiB', '3 GiB']
    """
    for power, unit in ((30, "GiB"), (20, "MiB"), (10, "KiB")):
        if number >= 2**power:
            return f"{number / 2**power:.4g} {unit}"
    return f"{number} B"


def value(number: float) -> str:
    """Return a value in short, with a minus sign as long as the plus sign.

    >>> [value(n) for n in (0.5, 0.0002, -1.0, 1e-5, 120.0)]
    ['0.5', '2e-4', '−1', '1e-5', '120']
    """
    text = f"{number:.3g}" if number else "0"
    if 0 < abs(number) < 1e-3:
        digits, _, power = f"{number:.2e}".partition("e")
        text = f"{digits.rstrip('0').rstrip('.')}e{int(power)}"
    return f"−{text[1:]}" if text.startswith("-") else text


def optimizer(given: Any) -> str:
    """Return the class, the present rate and the schedule of an optimizer.

    >>> optimizer(keras.optimizers.Adam(2e-4))
    'Adam 2e-4'
    """
    if given is None:
        return ""
    inner = getattr(given, "inner_optimizer", given)
    rate = getattr(inner, "learning_rate", None)
    rate = "" if rate is None else f" {value(_number(rate))}"
    schedule = _keras.schedule(given) if rate else None
    return f"{type(inner).__name__}{rate}{f', {type(schedule).__name__}' if schedule else ''}"


def _number(given: Any) -> float:
    return float(ops.convert_to_numpy(given))


def momentum(copy: Any) -> str:
    """Return the momentum of an `EMA`, and how often it follows."""
    given = copy.momentum
    text = value(float(given)) if isinstance(given, numbers.Real) else type(given).__name__
    return text if copy.every == 1 else f"{text}, every {copy.every} updates"


# Weights of losses --------------------------------------------------------------------------


@dataclass(frozen=True)
class Weight:
    """The weight of a loss as text, its sign, and what moves it. "" is for a fixed number."""

    text: str
    is_negative: bool
    moves: str = ""


def weight(factors: Sequence[Any], batches: int) -> Weight:
    """Describe the product of the factors of a loss after a number of batches.

    >>> weight((2, -0.5), batches=0)
    Weight(text='× −1', is_negative=True, moves='')
    """
    plain = math.prod(float(f) for f in factors if isinstance(f, numbers.Real))
    moving = [f for f in factors if not isinstance(f, numbers.Real)]
    found = [plain * _product(moving, n) for n in (batches, *(_TRIED if moving else ()))]
    sign = next((number for number in found if number), 1.0)
    return Weight(f"× {value(found[0])}", sign < 0, ", ".join(map(_what_moves, moving)))


def _product(factors: Iterable[Any], batches: int) -> float:
    count = ops.convert_to_tensor(batches, "int32")
    return math.prod(_number(f(count) if callable(f) else f) for f in factors)


def _what_moves(factor: Any) -> str:
    return "variable" if isinstance(factor, keras.Variable) else type(factor).__name__


# When a model is updated --------------------------------------------------------------------


def turn(given: Turn) -> list[str]:
    """Describe the batches on which a model is updated.

    >>> turn(Turn(every=2, start=100))
    ['every 2 batches', 'after 100 batches']
    """
    return [
        *([f"every {given.every} batches"] if given.every > 1 else []),
        *([f"after {given.start:,} batches"] if given.start else []),
        *([f"until batch {given.end:,}"] if given.end is not None else []),
    ]


def condition(given: Callable[..., Any], losses: Sequence[str]) -> str:
    """Describe the condition of an update: its formula if it is one, else the function's name.

    >>> condition(lambda losses: losses["critic"] > 0.5, ["critic"])
    'critic > 0.5'
    """
    try:
        found = given({name: _Term(name) for name in losses})
        if isinstance(found, _Term):
            return found.text
    except Exception:  # the condition does more than compare
        pass
    name = getattr(given, "__name__", type(given).__name__)
    return "its condition holds" if name == "<lambda>" else f"{name} is true"


_COMPARE, _ADD, _MULTIPLY, _NAME = range(4)  # how strongly a term holds together


def _operator(sign: str, strength: int) -> Callable[[Any, Any], Any]:
    def apply(term: Any, other: Any) -> Any:
        left = term.inside(strength)
        right = other.inside(strength + 1) if isinstance(other, _Term) else _threshold(other)
        return _Term(f"{left} {sign} {right}", strength)

    return apply


def _threshold(number: Any) -> str:
    text = value(_number(number))
    return f"{text} now (variable)" if isinstance(number, keras.Variable) else text


class _Term:
    """A loss in a condition. It notes the operators that are applied to it."""

    def __init__(self, text: str, strength: int = _NAME) -> None:
        self.text, self.strength = text, strength

    def inside(self, strength: int) -> str:
        """Return the text as an operand, in parentheses if the operator holds more strongly."""
        return f"({self.text})" if self.strength < strength else self.text

    __gt__, __lt__, __ge__, __le__ = (_operator(sign, _COMPARE) for sign in "><≥≤")
    __add__, __sub__ = (_operator(sign, _ADD) for sign in "+−")
    __mul__, __truediv__ = (_operator(sign, _MULTIPLY) for sign in "×/")

    def __bool__(self) -> bool:
        raise TypeError("A formula is neither true nor false.")

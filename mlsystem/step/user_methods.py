"""Wrap a user's `call`, `forward`, `train_step` and `test_step` when the class is defined."""

import contextlib
import weakref
from typing import Any

from mlsystem._signature import by_name
from mlsystem.step import context
from mlsystem.step.train_step import TrainStep

_STEPS = {"train_step": True, "test_step": False}
# The function that `call` and `forward` of a class share. It is not kept alive, because a function
# that calls `super()` holds its class.
_computes: weakref.WeakKeyDictionary[type, Any] = weakref.WeakKeyDictionary()


def adopt(cls: Any) -> None:
    """Make `call` and `forward` one function, and make steps of the methods in `_STEPS`."""
    _unite(cls)
    for name, training in _STEPS.items():
        if not hasattr(method := getattr(cls, name), "is_step"):  # also the method of a mixin
            setattr(cls, name, context.make(training)(method))


def _unite(cls: Any) -> None:
    for base in cls.__mro__:  # the class itself, or a mixin before the library's own
        if given := [vars(base)[name] for name in ("call", "forward") if name in vars(base)]:
            break
    known = _computes.get(base, lambda: None)()
    new = [compute for compute in given if compute is not known]
    if new and (base is cls or not issubclass(base, TrainStep)):
        compute = by_name(new[0])
        cls.call = cls.forward = compute
        with contextlib.suppress(TypeError):  # a static method has no weak reference
            _computes[cls] = weakref.ref(compute)

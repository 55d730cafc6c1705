"""Give variables other values inside a scope, and carry its assignments out.

Keras' scopes do not see through to the one around them, so this one starts from the values in
force outside it, and what was assigned inside can be assigned again outside. An assigned value is
a constant for gradients, as it is on the backends that assign in place.
"""

from collections.abc import Iterable
from typing import Any

import keras
from keras import ops

from mlsystem import _keras


class Scope(keras.StatelessScope):
    """A `keras.StatelessScope` that inherits values and remembers which variables were assigned.

    Args:
        given: pairs of a variable and its value inside the scope.
        state: variables whose present values the scope holds where there is no scope outside.
    """

    def __init__(self, given: Iterable[tuple[Any, Any]], state: Iterable[Any] = ()) -> None:
        super().__init__(collect_losses=True)
        outer = _keras.get_stateless_scope()
        self.state_mapping = dict(outer.state_mapping) if outer else {id(v): v.value for v in state}
        self.state_mapping.update((id(variable), value) for variable, value in given)
        self.assigned: dict[int, Any] = {}

    def add_update(self, update: tuple[Any, Any]) -> None:
        """Called by `variable.assign` inside the scope."""
        variable, value = update
        super().add_update((variable, ops.stop_gradient(value)))
        self.assigned[id(variable)] = variable

    def updates(self) -> dict[int, Any]:
        """The new values of the variables that were assigned, by their id."""
        return {key: self.get_current_value(v) for key, v in self.assigned.items()}


class Deferred(keras.StatelessScope):
    """A scope in which only new variables wait for their values, until it closes.

    The others are read and assigned as outside of it.
    """

    def __init__(self) -> None:
        super().__init__(collect_losses=True)

    def get_current_value(self, variable: Any) -> Any:
        """Called by `variable.value` inside the scope; None stands for a value to come."""
        known = super().get_current_value(variable)
        return _keras.values([variable])[0] if known is None else known

    def add_update(self, update: tuple[Any, Any]) -> None:
        """Called by `variable.assign` inside the scope."""
        variable, value = update
        if _keras.values([variable])[0] is None:
            super().add_update(update)
        else:
            _keras.assign_in_place(variable, value)

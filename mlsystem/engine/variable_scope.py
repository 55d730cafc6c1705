"""Give variables other values inside a scope, and carry its assignments out.

A Keras scope does not see the values of the scope around it. This scope starts from the values in
force outside. Values assigned inside can be assigned again outside. An assigned value is a constant
for gradients, as on the backends that assign in place.
"""

from collections.abc import Iterable
from typing import Any

import keras
from keras import ops

from mlsystem import _keras


class Scope(keras.StatelessScope):
    """A `keras.StatelessScope` that inherits values and records which variables were assigned.

    Args:
        given: pairs of a variable and its value inside the scope.
        state: variables whose current values the scope holds if there is no outer scope.
    """

    def __init__(self, given: Iterable[tuple[Any, Any]], state: Iterable[Any] = ()) -> None:
        super().__init__(collect_losses=True)
        outer = _keras.get_stateless_scope()
        self.state_mapping = dict(outer.state_mapping) if outer else {id(v): v.value for v in state}
        self.state_mapping.update((id(variable), value) for variable, value in given)
        self.assigned: dict[int, Any] = {}

    def add_update(self, update: tuple[Any, Any]) -> None:
        """Record an assignment. `variable.assign` calls this inside the scope."""
        variable, value = update
        super().add_update((variable, ops.stop_gradient(value)))
        self.assigned[id(variable)] = variable

    def updates(self) -> dict[int, Any]:
        """Return the new values of the assigned variables, by their id."""
        return {key: self.get_current_value(v) for key, v in self.assigned.items()}


class Deferred(keras.StatelessScope):
    """A scope that delays only the values of new variables, until it closes.

    All other variables are read and assigned as outside the scope.
    """

    def __init__(self) -> None:
        super().__init__(collect_losses=True)

    def get_current_value(self, variable: Any) -> Any:
        """Return the value of a variable, or None for a value that is still to come.

        `variable.value` calls this inside the scope.
        """
        known = super().get_current_value(variable)
        return _keras.values([variable])[0] if known is None else known

    def add_update(self, update: tuple[Any, Any]) -> None:
        """Delay the value of a new variable. Assign other variables at once.

        `variable.assign` calls this inside the scope.
        """
        variable, value = update
        if _keras.values([variable])[0] is None:
            super().add_update(update)
        else:
            _keras.assign_in_place(variable, value)

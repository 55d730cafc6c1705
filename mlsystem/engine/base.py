"""The interface of an engine, as one class. The rest of the library calls its methods.

Each backend has a subclass in a folder of its own. The subclass provides the abstract methods and
overrides the defaults that do not fit the backend.
"""

import contextlib
import importlib
import math
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import keras
from keras import ops

from mlsystem import _keras
from mlsystem.engine.replicas import Replicas
from mlsystem.engine.variable_scope import Scope

Losses = dict[str, Any]
Forward = Callable[[], tuple[Losses, Any]]
Routed = tuple[Losses, Any, list[list[Any]]]
State = Callable[[], list[Any]]
# One entry for each backward pass: the weight of each loss, and the variables it goes into.
Plan = Callable[[Losses], list[tuple[dict[str, Any], list[Any]]]]


class Engine(ABC):
    """The operations that differ between the backends."""

    name: str  # as Keras spells it
    # The size of a state, in numbers, from which on a rehearsal computes no numbers, where the
    # backend can do that. It takes longer than to copy a smaller state.
    LARGE = 2**24
    # Whether Keras divides one model over several devices.
    shards_models = False
    # Whether one program can hold several kinds of steps: see `switched`.
    SWITCHES = False
    # The replicas that train together. `ml.distribute` replaces it.
    replicas: Replicas = Replicas()
    # What `ml.distribute` has made: a distribution of Keras, a process group or a strategy.
    distributed: Any = None

    # Gradients

    @abstractmethod
    def gradients(self, fn: Forward, plan: Plan, state: State) -> Routed:
        """Run a forward pass once and differentiate its losses.

        Args:
            fn: the forward pass, `fn() -> (losses, aux)`. What it assigns to variables stays.
            plan: function of the losses that returns `[(weight of each loss, variables), ...]`.
                Each entry costs one backward pass, into its own variables only.
            state: function that lists all variables that `fn` may read or assign.

        Returns:
            The losses, `aux`, and the gradients of each entry of the plan. A gradient is None if no
            loss of the entry depends on the variable. Gradients are averaged over the replicas.
        """

    @abstractmethod
    def grad(self, fn: Callable[[Any], Any]) -> Callable[[Any], Any]:
        """Make the function that computes the gradient of the sum of `fn(x)`.

        The gradient can be differentiated again.
        """

    @abstractmethod
    def all_finite(self, gradients: list[Any]) -> Any:
        """Compute whether gradients, and the sum of their squares, are finite.

        The result is a boolean tensor. None means that the backend cannot skip an update.
        """

    @abstractmethod
    def apply(
        self, optimizer: Any, gradients: list[Any], weights: list[Any], condition: Any = None
    ) -> None:
        """Update weights with one optimizer, where a condition holds.

        The condition is a boolean tensor. None means that the update is unconditional.
        """

    # Variables

    @abstractmethod
    def kept(self, value: Any) -> Any:
        """Return the value of a variable such that later assignments do not change it."""

    def changed(self, value: Any, old: Any) -> bool:
        """Tell whether a variable may have been assigned since `old = kept(value)`.

        `value` is its present value. The default is True, which is always correct.
        """
        return True

    def read_later(self, value: Any) -> Callable[[], Any]:
        """Return a function that returns a tensor as an array. It waits for that tensor only."""
        return lambda: ops.convert_to_numpy(value)

    def read(self, values: list[Any]) -> Any:
        """Return scalar tensors of one dtype as an array. Each read of one may wait."""
        return ops.convert_to_numpy(ops.stack(values))

    # Steps

    @abstractmethod
    def train_function(self, system: Any) -> Callable[..., Any]:
        """Compile the training step into the function that Keras' `fit` calls."""

    def switched(self, steps: list[Any]) -> Callable[..., Any]:
        """Join training steps for different models to one program.

        It takes a group of batches, and as `kinds` the number of the step for each of them.
        """
        raise NotImplementedError

    @abstractmethod
    def test_function(self, system: Any) -> Callable[..., Any]:
        """Compile the test step into the function that Keras' `evaluate` calls."""

    def compiler(self, system: Any, step: Any = None) -> str:
        """Name what compiles a step of a system, for messages. Empty if it runs eagerly.

        Args:
            system: the system.
            step: the compiled step. By default, the steps of training.
        """
        return ""

    def vectorized(self, fn: Callable[[Any], Any], elements: Any, draws: bool) -> Any:
        """Map a function over the first axis of all elements, in one program.

        Args:
            fn: function of one element.
            elements: structure of tensors.
            draws: whether the function draws random numbers.
        """
        return ops.vectorized_map(fn, elements)

    def devices(self) -> list[str]:
        """List the devices of this process by name."""
        return list(keras.distribution.list_devices())

    def predict_scope(self, system: Any) -> contextlib.AbstractContextManager[Any]:
        """Return the context in which Keras' `predict` runs."""
        return contextlib.nullcontext()

    def step_scope(self, data: Any) -> contextlib.AbstractContextManager[Any]:
        """Return the context in which a step on a batch runs."""
        return contextlib.nullcontext()

    def trace(self) -> Any:
        """Identify the code that is being traced.

        A branch that cannot assign to variables has a trace of its own. The default is for a
        backend without such branches.
        """
        return None

    def runs_ahead(self) -> bool:
        """Tell whether a step may still be computing when its function has returned."""
        return True

    def trial(self, fn: Callable[[Any], Any], learner: Any) -> Callable[[Any], Any]:
        """Make a function of a batch that returns what `fn` does and leaves the state unchanged."""

        def run(data: Any) -> Any:
            with self._restored(learner, learner._mlsystem.state_variables()):
                return fn(data)

        return run

    @contextlib.contextmanager
    def discarding(self, learner: Any) -> Iterator[None]:
        """Discard what code that runs eagerly inside assigns to variables."""
        with Scope([], learner._mlsystem.state_variables()):
            yield

    def initial_values(self) -> contextlib.AbstractContextManager[Any]:
        """Return the context in which optimizers and running means get their first values."""
        return contextlib.nullcontext()

    def rehearse(self, step: Any, data: Any, state: list[Any]) -> None:
        """Run one step, a method of a learner, and leave the state unchanged."""
        learner = step.__self__
        is_large = sum(math.prod(variable.shape) for variable in state) >= self.LARGE
        if is_large and not learner.run_eagerly and self._rehearse_on_shapes(step, data, state):
            return
        with self._restored(learner, state):
            step(data)

    def _rehearse_on_shapes(self, step: Any, data: Any, state: list[Any]) -> bool:
        """Rehearse a step without numbers. Return False if that is not possible."""
        return False

    @contextlib.contextmanager
    def _restored(self, learner: Any, state: list[Any]) -> Iterator[None]:
        """Restore the state of a learner, and the seed that all layers share, at the end."""
        state = [*state, _keras.global_seed()]
        before = [self.kept(variable.value) for variable in state]
        try:
            yield
        finally:
            for variable, value in zip(state, before, strict=True):
                if self.changed(variable.value, value):
                    variable.assign(value)

    def buffers(self, system: Any) -> Callable[[], None]:
        """Copy what layers hold beside Keras' variables. Return the function that restores it."""
        return lambda: None

    # Memory

    def step_memory(self, system: Any, data: Any) -> int | None:
        """Return the bytes that a training step on a batch needs, without running it.

        None if the backend cannot tell.
        """
        return None

    def device_memory(self) -> int | None:
        """Return the bytes that the accelerator has. None without one, or if it does not tell."""
        return None

    def is_out_of_memory(self, error: BaseException) -> bool:
        """Tell whether an error of a step says that memory ran out."""
        return isinstance(error, MemoryError)

    # Several replicas

    def distribution(self) -> Any:
        """Return the module that starts several replicas: `is_joined`, `local_devices`, `start`."""
        return importlib.import_module(f"mlsystem.engine.{self.name}.distribution")

    def is_sharded(self, variable: Any) -> bool:
        """Tell whether no device holds the whole of a variable."""
        return False

    def shards(self) -> Any:
        """Return the module that saves sharded state: `can_save`, `save`, `restore`."""
        return importlib.import_module(f"mlsystem.engine.{self.name}.shards")

    def check_devices(self, system: Any) -> None:  # noqa: B027
        """Raise an error if a model is on several devices in a way that a step cannot use."""

    # Exported files

    def exporting(self) -> Any:
        """Return the module that writes and runs exported files: `WRITERS`, `RUNTIMES`."""
        return importlib.import_module(f"mlsystem.engine.{self.name}.exporting")

    def tracing(self, model: Any) -> contextlib.AbstractContextManager[Any]:
        """Return the context in which a model is traced for a file. It leaves the model as is."""
        return contextlib.nullcontext()

    def full_precision(self) -> contextlib.AbstractContextManager[Any]:
        """Return the context in which a GPU multiplies float32 numbers with all of their digits."""
        return contextlib.nullcontext()

    # Data and random numbers

    @abstractmethod
    def peek(self, system: Any, *given: Any) -> tuple[Any, tuple[Any, ...]]:
        """Look at the next batch before a training step.

        Args:
            system: the system that is trained.
            given: the arguments that Keras' `fit` has for the train function.

        Returns:
            The first batch in the arguments, None at the end of the data, and the arguments to call
            the train function with.
        """

    def no_loop(self, system: Any) -> str:
        """Say why steps of a system cannot run in a loop on the device. Empty if they can."""
        return "a loop on the device needs jax so far"

    def no_groups(self, system: Any) -> str:
        """Say why steps of a system on any data cannot run in groups. Empty if they can."""
        return "its steps run one at a time on this backend"

    def grouped(self, dataset: Any) -> Any:
        """Return an iterator over a data set of the backend, for groups of steps.

        None if batches are stacked for a group.
        """
        return None

    def gatherer(self, arrays: Any) -> Callable[[Any], Any]:
        """Return a function of row numbers that gathers these rows of arrays on the device."""
        raise NotImplementedError

    def reads_ahead(self) -> bool:
        """Tell whether Keras reads batches while it trains on earlier ones."""
        return False

    def reshuffle(self, epoch: Any) -> None:  # noqa: B027
        """Shuffle arrays anew in each epoch, by NumPy's generator or the backend's own.

        The default is for a backend on which Keras does so.
        """

    def random_state(self) -> Any:
        """Return the state of the backend's own random generators, as arrays."""
        return None

    def set_random_state(self, state: Any) -> None:  # noqa: B027
        """Set the backend's own random generators to a state."""

    # Callbacks and layers

    def aside(self, system: Any) -> contextlib.AbstractContextManager[Any]:
        """Return the context of an evaluation in the middle of an epoch. It changes no mode."""
        return contextlib.nullcontext()

    @abstractmethod
    def profile(self, folder: str) -> Callable[[], tuple[Path, str]]:
        """Start the profiler and return the function that stops it.

        That function returns the file of the trace and how to open it.
        """

    def as_layer(self, net: Any) -> Any:
        """Wrap a network of the backend's own kind as a Keras layer. Return others unchanged."""
        return net


def weighted_sum(losses: Losses, weights: dict[str, Any]) -> Any:
    """Sum the losses that have a weight."""
    return sum(losses[name] * weight for name, weight in weights.items())


def newest_file(folder: str, pattern: str) -> Path:
    """Find the file below a folder that was written last."""
    return max(Path(folder).rglob(pattern), key=lambda path: path.stat().st_mtime_ns)

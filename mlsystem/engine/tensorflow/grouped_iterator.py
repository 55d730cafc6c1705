"""Groups of steps on TensorFlow: Keras' loop over an iterator, with a number that may change."""

import time
from collections.abc import Callable, Iterator
from typing import Any

import tensorflow as tf
from keras import tree

from mlsystem.engine.group_growth import GroupGrowth

MOST = 128


class GroupedIterator:
    """An iterator over a data set of TensorFlow, with the number of batches of the next step.

    Attributes:
        group: the number of batches of the next step.
        missing: how many batches the data lacked for the last group.
        error: None, because an error of the data is raised where it occurs.

    Args:
        dataset: the data set, or batches that are read in Python.
    """

    error: Exception | None = None

    def __init__(self, dataset: Any) -> None:
        self.iterator = iter(dataset)
        self.group = 1
        self.missing = 0
        self.growth = GroupGrowth()

    def __iter__(self) -> Iterator[Any]:
        return self

    def __next__(self) -> Any:
        """Return the next batch, as Keras does."""
        return next(self.iterator)

    def ready(self) -> int:
        """Return how many of the next batches may form a group. 1 if they are read in Python."""
        return MOST if isinstance(self.iterator, tf.data.Iterator) else 1

    @property
    def most(self) -> int:
        """The largest number of batches that are worth it in one group."""
        return self.growth.most

    @most.setter
    def most(self, most: int) -> None:
        self.growth.most = most


class Steps:
    """A number of steps per execution that Keras reads in the graph, where it may change.

    It is no plain number, so that Keras makes a loop, of which one turn is one step. The loop ends
    earlier at the end of the data. `taken` counts its turns.
    """

    def __init__(self) -> None:
        self.variable = tf.Variable(1, trainable=False, dtype="int32")
        self.taken = tf.Variable(0, trainable=False, dtype="int32")

    def counted(self, step: Callable[[Any], Any]) -> Callable[[Any], Any]:
        """Make a step count itself."""

        def run(data: Any) -> Any:
            tensors = [leaf for leaf in tree.flatten(data) if tf.is_tensor(leaf)]
            with tf.control_dependencies(tensors):  # as in `step_scope`
                self.taken.assign_add(1)
            return step(data)

        return run

    def __tf_tensor__(self, dtype: Any = None, name: Any = None) -> Any:
        """Return the number as a tensor. See `tf.types.experimental.TensorProtocol`."""
        return tf.convert_to_tensor(self.variable, dtype, name=name)

    def __eq__(self, other: object) -> bool:
        return self is other

    def __lt__(self, other: object) -> bool:
        return False

    __hash__ = object.__hash__


class GroupedFunction:
    """The function of Keras for a group of steps of a system.

    Args:
        system: the system.
        make: makes the function of Keras.
    """

    def __init__(self, system: Any, make: Callable[[], Callable[..., Any]]) -> None:
        self.system, self.make = system, make
        self.function: Any = None
        self.steps: Any = None

    def __call__(self, batches: GroupedIterator) -> Any:
        """Run a group of steps. Return the logs of the last."""
        system, start = self.system, time.perf_counter()
        if self.function is None:
            self.function, self.steps = self._made()
        self.steps.variable.assign(batches.group)
        self.steps.taken.assign(0)
        before, system.steps_per_execution = system.steps_per_execution, self.steps
        try:
            logs = self.function(batches.iterator)
        finally:
            system.steps_per_execution = before
        batches.missing = batches.group - int(self.steps.taken.numpy())
        batches.growth.see(batches.group, lambda: time.perf_counter() - start)
        return logs

    def _made(self) -> tuple[Callable[..., Any], Steps]:
        steps, attributes = Steps(), vars(self.system)
        before = attributes.get("train_step")  # the user may have set one
        attributes["train_step"] = steps.counted(self.system.train_step)
        try:
            return self.make(), steps
        finally:
            attributes.pop("train_step")
            attributes |= {} if before is None else {"train_step": before}

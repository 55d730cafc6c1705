"""`BatchAdapter`: base class of data that yield NumPy batches to `fit` on every backend."""

from collections.abc import Iterator
from typing import Any

from mlsystem import _keras


class BatchAdapter(_keras.DataAdapter):
    """A data set whose iterator yields one epoch of batches: NumPy arrays or backend tensors.

    Keras uses it in place of its own adapters. Each batch is made between two steps, in the same
    thread. Random draws therefore happen in a fixed order.
    """

    def __iter__(self) -> Iterator[Any]:
        raise NotImplementedError

    def examples(self) -> list[Any]:
        """Return one batch of each structure, without an effect on the following epochs."""
        raise NotImplementedError

    def in_order(self) -> "BatchAdapter":
        """Return the same data for an evaluation: nothing is shuffled or left out."""
        return self

    def sized(self, batch_size: int) -> "BatchAdapter":
        """Return the data in batches of this size, or itself if it makes batches of its own."""
        return self

    def catch_up(self, state: Any) -> None:
        """Set the state of a transform, from a result of `get_state`. The data stay as they are."""

    @property
    def num_batches(self) -> int | None:
        """The number of batches in an epoch. None if it is unknown."""
        raise NotImplementedError

    def get_numpy_iterator(self) -> Iterator[Any]:
        """Return the iterator. Keras calls this method and the following ones."""
        return iter(self)

    def get_jax_iterator(self, super_batch: int | None = None) -> Iterator[Any]:
        """See Keras."""
        return _keras.super_batches(iter(self), super_batch)

    def get_torch_dataloader(self) -> Any:
        """See Keras."""
        return _keras.torch_loader(self)

    def get_tf_dataset(self) -> Any:
        """See Keras. Its trainer reads any iterator, but a data set has one structure only."""
        return self

    @property
    def batch_size(self) -> Any:
        """See Keras."""
        return None

    @property
    def has_partial_batch(self) -> Any:
        """See Keras."""
        return None

    @property
    def partial_batch_size(self) -> Any:
        """See Keras."""
        return None

"""Which rows of each global batch belong to this process.

All processes read the same batches in the same order. Each keeps its own rows.
"""

import contextlib
import itertools
import warnings
import zlib
from collections.abc import Callable, Iterable, Iterator
from typing import Any

import numpy as np
from keras import tree

from mlsystem import _keras
from mlsystem.engine import engine


def own(batch: Any, index: int, count: int) -> Any:
    """Return the rows of one of several processes. Their numbers differ by one at most."""

    def rows(leaf: Any) -> Any:
        if not len(getattr(leaf, "shape", ())):
            return leaf
        size = int(leaf.shape[0])
        return leaf[index * size // count : (index + 1) * size // count]

    return tree.map_structure(rows, batch)


def least(batch: Any) -> int:
    """Return the smallest number of rows in a batch. Streams may have several."""
    return min(_sizes(batch), default=0)


def _sizes(batch: Any) -> list[int]:
    leaves = [leaf for leaf in tree.flatten(batch) if len(getattr(leaf, "shape", ()))]
    return [int(leaf.shape[0]) for leaf in leaves]


def divides(batch: Any, count: int) -> bool:
    """Return whether all tensors of a batch can be divided into equal parts."""
    return all(size and size % count == 0 for size in _sizes(batch))


def divide(epoch: Any, training: bool) -> None:
    """Let Keras' iterator over an epoch read the rows of this process only."""
    replicas = engine.replicas
    if replicas.size == 1:
        return
    if _keras.yields_own_rows(epoch.data_adapter):
        _say(
            f"Each of the {replicas.count} processes reads its own rows from a generator, or by a "
            "DistributedSampler. The global batch holds the rows of all."
        )
        return
    if isinstance(epoch.data_adapter, OwnRows):  # the iterator of an earlier validation
        return
    if training:
        _check_size(epoch.data_adapter, replicas.size)
    quiet = _keras.stay_quiet
    epoch.data_adapter = OwnRows(epoch.data_adapter, training, lambda: quiet(epoch))
    epoch._num_batches = epoch.data_adapter.num_batches
    _keras.read_anew(epoch)


def _say(text: str) -> None:
    """Warn once, in the first process."""
    if engine.replicas.index == 0:
        warnings.warn(text, stacklevel=2)


def of_arguments(given: dict[str, Any]) -> None:
    """Keep the rows of this process of one batch, the arguments of `train_on_batch`."""
    replicas = engine.replicas
    if replicas.count == 1:
        return
    names = [n for n in ("x", "y", "sample_weight") if given.get(n) is not None]
    batch = {name: given[name] for name in names}
    if not divides(batch, replicas.size):
        raise ValueError(_indivisible(least(batch), replicas.size))
    given.update(own(batch, replicas.shard, replicas.shards))


def predicted() -> contextlib.AbstractContextManager[Any]:
    """Return the context in which Keras' `predict` reads batches that several devices share."""
    if engine.replicas.size == 1 or engine.replicas.reduces:
        return contextlib.nullcontext()
    return _keras.global_batches(lambda adapter: OwnRows(adapter, False, lambda: None))


def _check_size(adapter: Any, size: int) -> None:
    batch = adapter.batch_size
    if isinstance(batch, int) and batch % size:
        raise ValueError(_indivisible(batch, size))


def _indivisible(batch: int, size: int) -> str:
    return (
        f"A batch has {batch} samples, which do not divide by the {size} replicas that train "
        f"together. Give a batch size of {max(batch // size, 1) * size}, or another multiple of "
        f"{size}: it is the size of the global batch."
    )


class OwnRows:
    """A data adapter of Keras that yields the rows of this process.

    In training, a last batch that does not divide is dropped, since processes with fewer rows would
    count too much. In an evaluation, parts may differ by one row, and batches with fewer rows than
    processes join the one before.

    Args:
        adapter: the adapter of the whole data.
        training: whether the rows are trained on.
        quiet: function to call when there are fewer batches than the adapter says.
    """

    def __init__(self, adapter: Any, training: bool, quiet: Callable[[], None]) -> None:
        own = {"adapter": adapter, "training": training, "quiet": quiet}
        vars(self).update(own, replicas=engine.replicas)

    def __getattr__(self, name: str) -> Any:
        found = getattr(vars(self)["adapter"], name)
        return (lambda: [self._rows(batch) for batch in found()]) if name == "examples" else found

    def __setattr__(self, name: str, value: Any) -> None:
        setattr(self.adapter, name, value)

    def _rows(self, batch: Any) -> Any:
        replicas = self.replicas
        is_whole = not replicas.reduces and not divides(batch, replicas.size)
        rows = batch if is_whole else own(batch, replicas.shard, replicas.shards)
        return replicas.place(rows, is_whole)

    @property
    def num_batches(self) -> int | None:
        """The number of batches in an epoch. None if it is unknown."""
        number: int | None = self.adapter.num_batches
        partial = _keras.partial_batch(self.adapter)
        if number is None or not partial:
            return number
        size = self.replicas.size
        dropped = partial % size if self.training else self.joins and partial < size
        if dropped and self.training:
            self._drop(partial)
        return number - bool(dropped)

    def _drop(self, rows: int) -> None:
        _say(
            f"The last batch of an epoch has {rows} samples, which do not divide by the "
            f"{self.replicas.size} replicas. It is left out of training."
        )

    # One for each backend --------------------------------------------------------------------

    def get_torch_dataloader(self) -> Any:
        """See Keras."""
        if self.training:
            loader = _keras.torch_loader_of(self.adapter, self._divided)
            if loader is not None:
                return loader
        # The loader draws a random number when it is iterated, and not when it is first read.
        return _Batches(lambda: self._divided(iter(self.adapter.get_torch_dataloader())))

    def get_global_iterator(self) -> Any:
        """Return the batches as global arrays, on JAX."""
        return self._divided(self.adapter.get_jax_iterator())

    def get_tf_dataset(self) -> Any:
        """Return the batches on TensorFlow. They are read in Python."""
        return _Batches(lambda: self._divided(_keras.batches_on_tensorflow(self.adapter)))

    def get_numpy_iterator(self) -> Any:
        """See Keras."""
        return self._divided(self.adapter.get_numpy_iterator())

    # -----------------------------------------------------------------------------------------

    @property
    def is_placed(self) -> bool:
        """Whether batches are global arrays, which Keras need not place on devices."""
        return not self.replicas.reduces

    @property
    def joins(self) -> bool:
        """Whether a part of a batch must not be empty, so that small batches join others."""
        return self.replicas.reduces

    def _divided(self, batches: Iterable[Any]) -> Iterator[Any]:
        """Yield the own rows of batches, or of lists of row numbers."""
        whole = self._trained(batches) if self.training else self._evaluated(batches)
        for number, batch in enumerate(whole):
            if number == 0:
                self._check_equal(batch)
            self.replicas.parts = self._parts(batch)
            yield self._rows(batch)

    def _parts(self, batch: Any) -> tuple[int, ...] | None:
        size, rows = self.replicas.size, least(batch)
        if self.training or divides(batch, size) or not self.joins:
            return None
        return tuple((i + 1) * rows // size - i * rows // size for i in range(size))

    def _trained(self, batches: Iterable[Any]) -> Iterator[Any]:
        size = self.replicas.size
        for number, batch in enumerate(batches):
            if divides(batch, size):
                yield batch
            elif number == 0:
                raise ValueError(_indivisible(least(batch), size))
            else:
                self._drop(least(batch))
                self.quiet()

    def _evaluated(self, batches: Iterable[Any]) -> Iterator[Any]:
        size = self.replicas.size if self.joins else 0
        before: Any = None
        for batch in batches:
            if before is None:
                before = batch
            elif least(batch) < size:
                self.quiet()
                before = _joined(before, batch)
            else:
                yield before
                before = batch
        if before is not None:
            if least(before) < size:
                raise ValueError(
                    f"The data to evaluate have {least(before)} samples, and {size} replicas "
                    f"evaluate together. Give at least {size} samples."
                )
            yield before

    def _check_equal(self, batch: Any) -> None:
        """Raise an error if another process reads other data."""
        found = self.replicas.collect(_digest(batch))
        if other := [i for i, digest in enumerate(found) if digest != found[0]]:
            raise ValueError(
                f"Process {other[0]} reads other batches than process 0, and each takes its rows "
                "of the same ones. Call keras.utils.set_random_seed first if the data are shuffled "
                "at random, or give a generator, which yields the rows of its own process."
            )


class _Batches:
    """An iterable that makes its iterator anew each time."""

    def __init__(self, make: Callable[[], Iterator[Any]]) -> None:
        self.make = make

    def __iter__(self) -> Iterator[Any]:
        return self.make()


def _joined(first: Any, second: Any) -> Any:
    def together(one: Any, other: Any) -> Any:
        if not len(getattr(one, "shape", ())):
            return one
        return np.concatenate([np.asarray(one), np.asarray(other)])

    return tree.map_structure(together, first, second)


def _digest(batch: Any) -> int:
    digest = 0
    for leaf in itertools.islice(tree.flatten(batch), 8):
        if hasattr(leaf, "shape"):
            array = np.asarray(leaf.cpu() if hasattr(leaf, "cpu") else leaf)
            digest = zlib.crc32(np.ascontiguousarray(array).tobytes(), digest)
    return digest

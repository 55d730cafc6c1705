"""The private names of Keras for what `fit` takes as data.

All of them exist in Keras 3.11, unless a line says otherwise. The import of mlsystem fails without
these:

- `DataAdapter`: the base of `Streams` and `MLData`, which `fit` then takes as they are.
- `get_data_adapter`, `PyDatasetAdapter`, `is_torch_tensor`: reads anything that `fit` takes.
- `get_torch_dataloader`: gives NumPy batches to Keras' torch trainer.
- `is_tf_dataset`, `is_torch_dataloader`, `is_grain_dataset`, `can_convert_arrays`: tells the kinds
  of data apart.
- `train_validation_split`: what `fit(validation_split=)` does.
- `convert_to_sliceable`, `NumpySliceable`: arrays as `fit` reads them, for steps in a loop.

What happens without these differs:

- `super_batch_iterator` (since 3.16): the stacked batches of an execution on JAX. Without it,
  `Streams` and `MLData` fail there with `steps_per_execution`.
- `ArrayDataAdapter._epoch` (since 3.16): the number from which Keras draws the order of an epoch.
  Earlier versions draw it from NumPy's generator. Under another name, a resumed run has another
  order.
- `ArrayDataAdapter._shuffle`, `_tf_shuffle` (since 3.16), `TFEpochIterator._distribute_strategy`,
  `_distributed_dataset`: makes TensorFlow's data set of shuffled arrays again in an order that a
  checkpoint can restore. Without them, a resumed run has another order.
- `ArrayDataAdapter._inputs`, `_num_samples`, `_shuffle`: the arrays, their number, and whether
  their order is drawn at once. Without `_shuffle`, steps do not run in a loop on the device.
- `EpochIterator._interrupted_warning`: Keras does not warn where several processes drop a last
  batch. Without it, Keras warns.
- `_dataloader`, `_dataset`, `_get_iterator` of the adapters of torch, Grain and `PyDataset`: the
  batches as they are. Without them, Keras walks each batch and makes a tuple of it.
"""

from collections.abc import Iterable, Iterator
from types import GeneratorType
from typing import Any

import keras
import numpy as np

from mlsystem._keras.lookup import attribute, needed

with needed():
    from keras.src.trainers import data_adapters
    from keras.src.trainers.data_adapters import data_adapter_utils
    from keras.src.trainers.data_adapters.array_data_adapter import can_convert_arrays
    from keras.src.trainers.data_adapters.array_slicing import (
        NumpySliceable,
        convert_to_sliceable,
        train_validation_split,
    )
    from keras.src.trainers.data_adapters.data_adapter import DataAdapter as DataAdapter

    data_adapter = data_adapters.get_data_adapter  # what `fit` reads x, y and sample_weight by
    torch_loader = data_adapter_utils.get_torch_dataloader  # of NumPy batches
    is_torch_loader = data_adapters.is_torch_dataloader
    _is_known = (data_adapters.is_tf_dataset, is_torch_loader, data_adapters.is_grain_dataset)
    is_torch_tensor = data_adapter_utils.is_torch_tensor


def kind_of_data(x: Any) -> str | None:
    """Return what `fit` takes `x` for: "arrays", a "dataset", a "generator", or None."""
    if isinstance(x, GeneratorType):
        return "generator"
    if isinstance(x, (DataAdapter, keras.utils.PyDataset)) or any(known(x) for known in _is_known):
        return "dataset"
    return "arrays" if keras.tree.flatten(x) and can_convert_arrays((x,)) else None


def batches(adapter: Any) -> Iterable[Any]:
    """Return the batches of a data adapter as its data set yields them, or as NumPy arrays."""
    # Keras would make a tuple of each batch of a torch loader, whatever it is, and reads Grain
    # by private names that come and go.
    found = (getattr(adapter, name, None) for name in ("_dataloader", "_dataset"))
    given: Iterable[Any] | None = next((data for data in found if data is not None), None)
    if given is not None:
        return given
    if isinstance(adapter, data_adapters.PyDatasetAdapter) and hasattr(adapter, "_get_iterator"):
        given = adapter._get_iterator()
    return adapter.get_numpy_iterator() if given is None else given


def super_batches(batches: Iterator[Any], count: int | None) -> Iterator[Any]:
    """Return batches as Keras 3.16 reads them on JAX: stacked, if it gives a count."""
    return data_adapter_utils.super_batch_iterator(batches, count) if count else batches


def yields_own_rows(adapter: Any) -> bool:
    """Return whether data are different in each process: a generator, or a distributed sampler."""
    if isinstance(adapter, data_adapters.GeneratorDataAdapter):
        return True
    loader = getattr(adapter, "_dataloader", None)
    return type(getattr(loader, "sampler", None)).__name__ == "DistributedSampler"


def partial_batch(adapter: Any) -> int:
    """Return the number of rows in the last batch of arrays, if it is smaller; else 0."""
    is_array = isinstance(adapter, data_adapters.ArrayDataAdapter)
    return int(adapter.partial_batch_size or 0) if is_array else 0


def torch_loader_of(adapter: Any, own: Any) -> Any:
    """Return a loader on torch that reads only the own rows of each batch of arrays, or None.

    `own` gets the row numbers of a batch, and returns its part of them.
    """
    if not isinstance(adapter, data_adapters.ArrayDataAdapter):
        return None
    loader = adapter.get_torch_dataloader()
    batches = _Mapped(lambda rows: own(map(np.array, rows)), loader.batch_sampler)
    return type(loader)(loader.dataset, batch_sampler=batches, collate_fn=loader.collate_fn)


def batches_on_tensorflow(adapter: Any) -> Any:
    """Return the batches of an adapter on TensorFlow, arrays in an order of NumPy's generator."""
    if isinstance(adapter, data_adapters.ArrayDataAdapter):
        return adapter.get_numpy_iterator()
    return iter(adapter.get_tf_dataset())


def read_anew(epoch: Any) -> None:
    """Let Keras' iterator on TensorFlow read another data set, which its adapter makes."""
    if hasattr(epoch, "_distributed_dataset"):
        epoch._distributed_dataset = epoch.data_adapter.get_tf_dataset()


def is_indexed(adapter: Any) -> bool:
    """Return whether `indexed` can read data: arrays whose order is drawn once an epoch."""
    is_array = type(adapter) is data_adapters.ArrayDataAdapter
    if not is_array or getattr(adapter, "_shuffle", "batch") == "batch":
        return False
    first = keras.tree.map_structure(
        lambda leaf: None if leaf is None else leaf[:1], _inputs(adapter)
    )
    leaves = keras.tree.flatten(convert_to_sliceable(first, target_backend="jax"))
    found = [leaf for leaf in leaves if leaf is not None]
    return all(type(leaf) is NumpySliceable and leaf.array.dtype.kind in "biuf" for leaf in found)


def indexed(adapter: Any) -> tuple[Any, Iterator[Any], int]:
    """Return what `fit` reads from arrays: NumPy arrays, row numbers of each batch, batch size.

    The row numbers come in the order that Keras draws when the first batch is read.
    """
    own = _inputs(adapter)
    arrays = convert_to_sliceable(own, target_backend="jax")
    adapter._inputs = np.arange(adapter._num_samples)
    try:
        rows = adapter.get_numpy_iterator()
    finally:
        adapter._inputs = own
    read = keras.tree.map_structure(lambda leaf: None if leaf is None else leaf.array, arrays)
    return read, rows, adapter.batch_size


def _inputs(adapter: Any) -> Any:
    return attribute("_inputs", adapter)


class _Mapped:
    """An iterable of the results of a function that takes an iterator."""

    def __init__(self, fn: Any, source: Any) -> None:
        self.fn, self.source = fn, source

    def __iter__(self) -> Any:
        return self.fn(iter(self.source))

    def __len__(self) -> int:
        return len(self.source)


def stay_quiet(epoch: Any) -> None:
    """Keep Keras' iterator from warning that the data ended early."""
    epoch._interrupted_warning = lambda: None


def split(x: Any, y: Any, sample_weight: Any, validation_split: float) -> tuple[Any, Any]:
    """Split arrays into what `fit` trains on and what it validates on."""
    return train_validation_split((x, y, sample_weight), validation_split=validation_split)


def data_epoch(adapter: Any) -> int | None:
    """Return the number that the order of an epoch is drawn from; None before Keras 3.16."""
    return getattr(adapter, "_epoch", None)


def set_data_epoch(adapter: Any, number: int | None) -> None:
    """Set that number, if there is one."""
    if number is not None and data_epoch(adapter) is not None:
        adapter._epoch = number


def draw_order(adapter: Any) -> None:
    """Draw the order of the next epoch from NumPy's generator, as before Keras 3.16."""
    if data_epoch(adapter) is not None:
        adapter._epoch = int(np.random.randint(2**31))


def made_dataset(epoch: Any, permuted: Any) -> Any:
    """Make TensorFlow's data set of shuffled arrays again; None for other data, or if spread."""
    shuffles = getattr(epoch.data_adapter, "_shuffle", False)
    if hasattr(epoch.data_adapter, "_tf_shuffle"):  # what Keras 3.16 orders them by
        epoch.data_adapter._tf_shuffle = permuted
    if shuffles in (False, "batch") or epoch._distribute_strategy.num_replicas_in_sync > 1:
        return None
    epoch._distributed_dataset = None  # its copy of the data goes before the next is made
    return epoch.data_adapter.get_tf_dataset()

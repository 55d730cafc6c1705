"""Programs that train one small network by `fit` from one source of data: mlsystem, and Keras."""

from collections.abc import Iterator
from functools import partial
from typing import Any

import keras
import numpy as np

import mlsystem as ml
from benchmarks.networks.keras import adam, networks
from benchmarks.peers.keras_fit import KerasFit, Steps

BATCH = 32  # in `fit`, `MLData` and `Streams`, where nothing else is said
_made: dict[int, Any] = {}  # loaders with workers, by number of samples


class Plain(KerasFit):
    """Plain Keras."""

    side, wrap = 1, staticmethod(lambda network: network)  # `side` is that of pairs in `SOURCES`

    def build(self) -> None:
        network = networks(self.workload)["model"]
        if "streams" in self.workload.source:
            inputs = named(*(keras.Input(network.input_shape[1:]) for _ in range(2)))
            network = keras.Model(inputs, {name: network(x) for name, x in inputs.items()})
        self.model = self.wrap(network)
        self.model.compile(loss="mse", optimizer=adam(self.workload), **self.options)

    def batches(self) -> list[tuple[Any, ...]]:
        return self.given

    def train(self, segment: Any) -> dict[str, float]:
        given = [segment.batches[i % len(segment.batches)] for i in range(len(segment))]
        arrays = [np.concatenate(parts) for parts in zip(*given, strict=True)]
        data = SOURCES[self.workload.source][self.side](*arrays)
        data = data if isinstance(data, tuple) else (data,)
        return {"loss": self.fit(*data, callbacks=[Steps(segment)])["loss"]}


class MLSystem(Plain):
    """A model alone."""

    side, wrap = 0, ml.MLModel


def batches(x: Any, y: Any) -> Iterator[Any]:
    """The batches, one after another."""
    return ((x[i : i + BATCH], y[i : i + BATCH]) for i in range(0, len(x), BATCH))


def brighter(x: Any) -> Any:
    """A transform in NumPy."""
    return x + np.float32(0.1)


def transformed(x: Any, y: Any) -> Iterator[Any]:
    """Batches in random order, transformed in Python."""
    order = np.random.permutation(len(x)).reshape(-1, BATCH)
    return ((brighter(x[rows]), y[rows]) for rows in order)


def tf_data(x: Any, y: Any) -> Any:
    """A `tf.data.Dataset`."""
    import tensorflow as tf

    return tf.data.Dataset.from_tensor_slices((x, y)).batch(BATCH).prefetch(tf.data.AUTOTUNE)


def zipped(x: Any, y: Any) -> Any:
    """Two of them side by side, as Keras takes them."""
    import tensorflow as tf

    pairs = tf.data.Dataset.zip(tf_data(x, y), tf_data(x, y))
    return pairs.map(lambda one, two: (named(one[0], two[0]), named(one[1], two[1])))


def data_loader(x: Any, y: Any) -> Any:
    """A `DataLoader` with two workers, which read whole batches and stay for the next segment."""
    from torch import from_numpy
    from torch.utils.data import DataLoader, TensorDataset

    parts = [from_numpy(array).reshape(-1, BATCH, array.shape[-1]) for array in (x, y)]
    workers = {"num_workers": 2, "multiprocessing_context": "spawn", "persistent_workers": True}
    return _made.setdefault(len(x), DataLoader(TensorDataset(*parts), batch_size=None, **workers))


def grain_data(x: Any, y: Any) -> Any:
    """A Grain data set of whole batches."""
    import grain

    return grain.MapDataset.source(list(batches(x, y))).to_iter_dataset()


def named(one: Any, two: Any) -> dict[str, Any]:
    """What two streams hold, by name."""
    return {"one": one, "two": two}


# For each source, what `fit` of mlsystem gets, and what that of Keras.
SOURCES = {
    "arrays": (lambda x, y: (x, y), lambda x, y: (x, y)),
    "mldata": (lambda x, y: ml.MLData(train=(x, y)), lambda x, y: (x, y)),
    "transform": (lambda x, y: ml.MLData(train=(x, y), transform=brighter), transformed),
    "generator": (lambda x, y: ml.MLData(train=partial(batches, x, y)), batches),
    "streams": (
        lambda x, y: ml.Streams(named((x, y), (x, y))),
        lambda x, y: (named(x, x), named(y, y)),
    ),
    "streams_tf_data": (lambda x, y: ml.Streams(named(tf_data(x, y), tf_data(x, y))), zipped),
    "tf_data": (tf_data, tf_data),
    "data_loader": (data_loader, data_loader),
    "grain": (grain_data, grain_data),
}

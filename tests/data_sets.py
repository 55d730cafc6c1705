"""The same ten rows, in batches, from each kind of data set that Keras takes."""

import keras
import numpy as np
import pytest

BACKEND = keras.backend.backend()
SIZE, BATCHES = 4, 3  # the last batch is shorter
RNG = np.random.default_rng(0)
X = RNG.normal(size=(10, 2)).astype("float32")
Y = (X @ np.array([[1.0], [-2.0]])).astype("float32")
WEIGHT = RNG.uniform(0.5, 2.0, size=10).astype("float32")


def slices():
    return [slice(i, i + SIZE) for i in range(0, len(X), SIZE)]


class Sequence(keras.utils.PyDataset):
    def __init__(self, *parts):
        super().__init__()
        self.parts = parts

    def __len__(self):
        return BATCHES

    def __getitem__(self, i):
        return tuple(p[slices()[i]] for p in self.parts)


def generator(*parts):
    while True:
        yield from (tuple(p[s] for p in parts) for s in slices())


def grain(*parts):
    import grain

    rows = grain.MapDataset.source([tuple(p[i] for p in parts) for i in range(len(X))])
    return rows.batch(SIZE)


def tf_data(*parts):
    import tensorflow as tf

    return tf.data.Dataset.from_tensor_slices(parts).batch(SIZE)


def torch_loader(*parts):
    import torch

    dataset = torch.utils.data.TensorDataset(*(torch.as_tensor(p) for p in parts))
    return torch.utils.data.DataLoader(dataset, batch_size=SIZE)


only_tensorflow = pytest.mark.skipif(
    BACKEND != "tensorflow", reason="tensorflow is installed beside its own backend only"
)
only_torch = pytest.mark.skipif(BACKEND != "torch", reason="torch is installed on torch only")
# Keras asks no Grain data set for its length, and warns where it ends.
unsized = pytest.mark.filterwarnings("ignore:Your input ran out of data:UserWarning")
KINDS = [
    pytest.param(Sequence, {}, id="PyDataset"),
    pytest.param(generator, {"steps_per_epoch": BATCHES}, id="generator"),
    pytest.param(grain, {}, id="grain", marks=unsized),
    pytest.param(tf_data, {}, id="tf.data", marks=only_tensorflow),
    pytest.param(torch_loader, {}, id="DataLoader", marks=only_torch),
]

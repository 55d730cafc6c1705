"""Models are pickled as Keras pickles its own: for Ray, joblib and multiprocessing."""

import copy
import pickle

import cloudpickle
import keras
import numpy as np
import pytest
from keras import layers

import mlsystem as ml

registered = keras.saving.register_keras_serializable("tests")
X = np.random.default_rng(0).normal(size=(4, 3)).astype("float32")
Y = X[:, :1]
COPIES = [
    copy.deepcopy,
    lambda model: pickle.loads(pickle.dumps(model)),
    lambda model: cloudpickle.loads(cloudpickle.dumps(model)),
]


@registered
class Named(ml.MLModel):
    """A subclass that is given inputs and outputs."""

    def loss(self, x, y, outputs):
        return keras.ops.mean((outputs - y) ** 2)


@registered
class Inside(ml.MLModel):
    """One that makes its inputs and outputs itself."""

    def __init__(self, units=1, **kwargs):
        inputs = keras.Input((3,))
        super().__init__(inputs=inputs, outputs=layers.Dense(units)(inputs), **kwargs)

    def get_config(self):
        return {"name": self.name}


def functional(cls):
    inputs = keras.Input((3,))
    return cls(inputs=inputs, outputs=layers.Dense(1)(inputs))


@registered
class Averaged(ml.MLSystem):
    def __init__(self, net):
        super().__init__()
        self.net = net
        self.average = ml.EMA(net, 0.5)

    def forward(self, x):
        return {"net": self.net(x), "average": self.average(x)}

    def compute_losses(self, x, y, outputs):
        return {"net": keras.ops.mean((outputs["net"] - y) ** 2)}


KINDS = {
    "keras": lambda: functional(keras.Model),
    "functional": lambda: functional(ml.MLModel),
    "subclass": lambda: functional(Named),
    "inside": Inside,
    "system": lambda: Averaged(functional(ml.MLModel)),
}


@pytest.mark.parametrize("kind", KINDS)
def test_copies_have_the_weights_and_the_optimizer(kind):
    model = KINDS[kind]()
    loss = {} if kind in ("system", "subclass") else {"loss": "mse"}
    model.compile("adam", **loss, run_eagerly=True)
    model.fit(X, Y, verbose=0)
    for duplicate in COPIES:
        other = duplicate(model)
        assert type(other).__name__ == type(model).__name__ and other is not model
        for one, two in zip(model.get_weights(), other.get_weights(), strict=True):
            np.testing.assert_array_equal(one, two)
        assert int(other.optimizer.iterations) == 1
        if kind == "system":
            copies = [duplicate(system.average) for system in (model, other)]
            for average in copies:
                np.testing.assert_array_equal(average(X), model.average(X))
    assert isinstance(model, keras.Model if kind == "keras" else ml.MLModel)

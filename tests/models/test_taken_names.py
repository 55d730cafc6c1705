"""A layer is not set under a name that Keras sets on models: it would be lost."""

import keras
import numpy as np
import pytest
from keras import layers

import mlsystem as ml

X = np.ones((2, 1), "float32")


def set_by_keras():
    """The public attributes of a Keras model that was trained, evaluated and asked."""

    class Net(keras.Model):
        def __init__(self):
            super().__init__()
            self._dense = layers.Dense(1)

        def call(self, x):
            return self._dense(x)

    model = Net()
    model.compile("sgd", "mse", run_eagerly=True)
    model.fit(X, X, verbose=0)
    model.evaluate(X, X, verbose=0)
    model.predict(X, verbose=0)
    return {name for name in vars(model) if not name.startswith("_")} | {"training", "loss"}


def is_refused(model, name, value):
    try:
        setattr(model, name, value)
    except (ValueError, AttributeError):  # the latter of properties
        return True
    return False


@pytest.mark.parametrize("cls", [ml.MLModel, ml.MLSystem])
def test_names_that_keras_sets_are_refused(cls):
    names = set_by_keras()
    assert {"optimizer", "train_function", "history", "stop_training", "built"} <= names
    for made in (layers.Dense, lambda n: [layers.Dense(n)], lambda n: {"a": layers.Dense(n)}):
        assert [name for name in names if not is_refused(cls(), name, made(1))] == []


def test_the_error_names_the_class_and_the_attribute():
    class Outer(ml.MLSystem):
        def __init__(self):
            super().__init__()
            self.optimizer = ml.MLModel(layers.Dense(1))

    with pytest.raises(ValueError, match="A member of Outer cannot be called 'optimizer'"):
        Outer()


@pytest.mark.parametrize("cls", [ml.MLModel, ml.MLSystem])
def test_private_methods_of_keras_are_refused(cls):
    names = {n for n in dir(keras.Model) if n[0] == "_" and n[:2] != "__"}
    methods = {n for n in names if callable(getattr(keras.Model, n))}
    assert "_compute_loss" in methods
    for made in (layers.Dense, lambda n: [layers.Dense(n)]):
        assert [name for name in methods if not is_refused(cls(), name, made(1))] == []
    cls()._mine = layers.Dense(1)

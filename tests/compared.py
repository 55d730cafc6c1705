"""Trains the same system compiled and eagerly, and compares all that it leaves."""

import keras
import numpy as np
from keras import layers, ops
from toys import number

import mlsystem as ml

RNG = np.random.default_rng(0)
X = RNG.normal(size=(18, 3)).astype("float32")
Y = (X @ np.array([[1.0, 0.2], [-2.0, 0.1], [0.5, 0.3]]) + 0.1).astype("float32")
WEIGHT = RNG.uniform(0.5, 2.0, size=18).astype("float32")


class Record(keras.callbacks.Callback):
    """Keeps the logs of each batch, and does something after it."""

    def __init__(self, act=None):
        super().__init__()
        self.kept, self.act = [], act

    def on_train_batch_end(self, batch, logs=None):
        self.kept.append({name: number(value) for name, value in logs.items()})
        if self.act is not None:
            self.act(self.model, batch)


def compiled(learner, **given):
    """Compiles a learner with the optimizers it comes with."""
    if not isinstance(learner, ml.MLSystem):
        given = {"optimizer": learner.configure_optimizer()} | given
    learner.compile(**given)
    return learner


def state(learner):
    """All that training leaves, by path: weights, seeds, moving statistics, optimizers."""
    inner = [v for optimizer in learner.optimizers.values() for v in optimizer.variables]
    variables = [*learner.variables, *inner, learner.optimizer.iterations]
    return {f"{i} {v.path}": ops.convert_to_numpy(v) for i, v in enumerate(variables)}


def same_start():
    keras.utils.clear_session(free_memory=False)
    keras.utils.set_random_seed(0)


def fitted(build, *data, act=None, compile=None, run_eagerly=False, **given):
    """The learner after a fit from seed 0, with the logs of each batch and of each epoch."""
    same_start()
    learner = compiled(build(), run_eagerly=run_eagerly, **(compile or {}))
    record = Record(act)
    given = {"batch_size": 4, "shuffle": False, "verbose": 0} | given
    history = learner.fit(*data, callbacks=[record], **given).history
    return learner, record.kept, history


def agree(build, *data, **given):
    """Trains compiled and eagerly, asserts that all is equal, and returns the compiled one."""
    learner, *logs = fitted(build, *data, **given)
    eager, *expected = fitted(build, *data, run_eagerly=True, **given)
    equal(logs, expected)
    equal(state(learner), state(eager), rtol=1e-4)
    return learner


def equal(got, expected, rtol=1e-5):
    """Asserts the same names, and nearly the same numbers."""
    if isinstance(expected, dict):
        assert got.keys() == expected.keys()  # JAX sorts what a compiled step returns
        for name in expected:
            np.testing.assert_allclose(got[name], expected[name], rtol, 1e-6, err_msg=name)
    else:
        assert len(got) == len(expected)
        for one, other in zip(got, expected, strict=True):
            equal(one, other, rtol)


def net(*between, loss="mse", optimizer=None):
    hidden = [layers.Dense(4, activation="tanh"), *between, layers.Dense(2)]
    return ml.MLModel(keras.Sequential(hidden), loss=loss, optimizer=optimizer or sgd())


def sgd(rate=0.1, **given):
    return keras.optimizers.SGD(rate, **given)

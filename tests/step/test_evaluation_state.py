"""What a compiled test step holds."""

import gc
import weakref

import keras
import numpy as np
from keras import layers

import mlsystem as ml


class Two(ml.MLSystem):
    routing = "own"

    def __init__(self):
        super().__init__()
        self.a, self.b = (
            ml.MLModel(
                keras.Sequential([layers.Dense(2), layers.Dense(1)]),
                loss="mse",
                optimizer="adam",
            )
            for _ in range(2)
        )
        self.a.net.layers[0].trainable = False

    def forward(self, x):
        return {"a": self.a(x), "b": self.b(x)}

    def test_step(self, data):
        self.log("rate", self.optimizers["a"].learning_rate)
        self.log("batches", self.optimizer.iterations)
        return super().test_step(data)


def test_thawing_frees_the_state_of_the_optimizer_before():
    system, x = Two(), np.ones((4, 2), "float32")
    data = {"x": x, "y": {"a": x[:, :1], "b": x[:, :1]}, "verbose": 0}
    system.fit(**data, validation_data=(x, data["y"]))
    if keras.backend.backend() == "jax":
        held = {id(v) for v in system.test_function.state}
        slots = [v for o in system.optimizers.values() for v in o.variables if v.shape]
        assert slots and not held & {id(v) for v in slots}
    system.optimizers["a"].learning_rate = 0.25
    logs = system.evaluate(**data, return_dict=True)  # the counts and rates are those of now
    assert logs["rate"] == 0.25 and logs["batches"] == 1.0
    before = weakref.ref(system.optimizers["a"])
    system.a.net.layers[0].trainable = True
    system.fit(**data)
    assert system.optimizers["a"] is not before() and system.test_function is None
    assert set(system.train_function.optimizers) == set(system.optimizers.values())
    gc.collect()
    assert before() is None
    system.evaluate(**data)

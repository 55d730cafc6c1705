"""Precision that is given to layers."""

import keras
import numpy as np
from keras import layers, ops
from toys import ones

import mlsystem as ml


def dense(dtype):
    return layers.Dense(1, use_bias=False, kernel_initializer="ones", dtype=dtype)


class Tiny(ml.MLSystem):
    """Each model's loss is 1e-8 mean(w x): its gradient is 0 in float16, unless it is scaled."""

    routing = "own"

    def __init__(self):
        super().__init__()
        half, whole = "mixed_float16", "float32"
        rate = 1e6
        self.layer = ml.MLModel(
            keras.Sequential([dense(half)]), optimizer=keras.optimizers.SGD(rate)
        )
        self.nested = ml.MLModel(
            keras.Sequential([keras.Sequential([dense(half)])]),
            optimizer=keras.optimizers.SGD(rate),
        )
        self.whole = ml.MLModel(dense(whole), optimizer=keras.optimizers.SGD(rate))

    def forward(self, x):
        return {name: getattr(self, name)(x) for name in ("layer", "nested", "whole")}

    def compute_losses(self, x, y, outputs):
        return {n: ops.mean(ops.cast(value, "float32")) * 1e-8 for n, value in outputs.items()}


def test_a_model_with_a_layer_of_float16_scales_its_loss():
    system = Tiny()
    system.fit(ones(), verbose=0)
    scaled = (keras.optimizers.LossScaleOptimizer,)
    scales = {name: isinstance(o, scaled) for name, o in system.optimizers.items()}
    assert scales == {"layer": True, "nested": True, "whole": False}
    for name in scales:
        np.testing.assert_allclose(getattr(system, name).get_weights()[0], 0.99, rtol=1e-4)

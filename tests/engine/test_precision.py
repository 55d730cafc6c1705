"""Precision that is given to layers, and float64."""

import contextlib

import keras
import numpy as np
import pytest
from keras import layers, ops
from toys import TinyGAN, number, ones
from trained import weights

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


@contextlib.contextmanager
def x64():
    """JAX has no float64 unless it is asked for."""
    if keras.backend.backend() != "jax":
        yield
        return
    import jax

    with jax.enable_x64(True):
        yield


@pytest.fixture
def float64():
    floatx, policy = keras.config.floatx(), keras.config.dtype_policy()
    with x64():
        keras.config.set_floatx("float64")
        keras.config.set_dtype_policy("float64")
        try:
            yield
        finally:
            keras.config.set_floatx(floatx)
            keras.config.set_dtype_policy(policy)


@pytest.mark.parametrize("eagerly", [False, True])
def test_a_system_trains_in_float64(float64, eagerly):
    gan = TinyGAN()
    gan.compile(run_eagerly=eagerly)
    # Gradients of 1e25, whose squares are not finite in float32.
    history = gan.fit(1e25 * ones().astype("float64"), verbose=0).history
    assert gan.generator.weight.dtype == "float64"
    assert weights(gan) == pytest.approx([0.1 * 3e25, -0.01 * 1e25], rel=1e-6)
    assert not any(name.endswith("_skipped") for name in history)


def test_what_is_not_finite_is_skipped_in_float64(float64):
    gan = TinyGAN()
    with pytest.warns(UserWarning, match="not finite"):
        gan.fit(np.full((4, 1), np.nan), verbose=0)
    assert [number(w) for w in gan.trainable_weights] == [2.0, 3.0]

"""An EMA of a model in half precision keeps its averages in float32."""

import keras
import numpy as np
import pytest
from keras import layers, ops
from toys import Scale, number, ones

import mlsystem as ml
from mlsystem.models import ema

half = pytest.mark.parametrize("dtype", ["bfloat16", "float16"])


class Followed(ml.MLSystem):
    """One weight that each step moves by -0.25, and a copy."""

    def __init__(self, dtype):
        super().__init__()
        self.model = Scale(1.0, keras.optimizers.SGD(0.25), dtype=dtype)
        self.copy = ml.EMA(self.model, momentum=0.999)

    def forward(self, x):
        return {"model": self.model(x), "copy": self.copy(x)}

    def compute_losses(self, x, y, outputs):
        assert outputs["copy"].dtype == outputs["model"].dtype
        return {"model": ops.mean(outputs["model"])}


@half
def test_small_steps_add_up(dtype, tmp_path):
    system = Followed(dtype)
    system.fit(ones(12), batch_size=4, verbose=0)
    expected = 1.0
    for w in (0.75, 0.5, 0.25):
        expected = 0.999 * expected + 0.001 * w
    assert number(system.model.weight) == 0.25
    [average] = system.copy.averages
    assert average.dtype == "float32"
    assert number(average) == pytest.approx(expected, abs=1e-6)
    assert [str(w.dtype) for w in system.copy.get_weights()] == ["float32", "int32"]
    system.save_weights(tmp_path / "a.weights.h5")
    other = Followed(dtype).setup(ones())
    other.load_weights(tmp_path / "a.weights.h5")
    assert number(other.copy.averages[0]) == pytest.approx(expected, abs=1e-6)


@half
def test_a_file_with_averages_in_half_precision_loads(dtype, tmp_path, monkeypatch):
    with monkeypatch.context() as patch:
        patch.setattr(ema, "_average_dtype", lambda dtype: dtype)
        before = Followed(dtype).setup(ones())
    assert before.copy.averages[0].dtype == dtype
    before.copy.averages[0].assign(1.5)
    before.save_weights(tmp_path / "a.weights.h5")
    before.save(tmp_path / "a.keras")
    for name in ("a.weights.h5", "a.keras"):
        after = Followed(dtype).setup(ones())
        after.load_weights(tmp_path / name)
        assert after.copy.averages[0].dtype == "float32"
        assert number(after.copy.averages[0]) == 1.5


@half
def test_a_call_uses_the_dtypes_of_the_source(dtype):
    source = keras.Sequential(
        [layers.Dense(3, dtype=dtype), layers.BatchNormalization(dtype=dtype), layers.Dense(1)]
    )
    x = np.random.default_rng(0).normal(size=(4, 2)).astype("float32")
    expected = source(x)
    copy = ml.EMA(source)
    outputs = copy(x)
    assert outputs.dtype == expected.dtype
    np.testing.assert_array_equal(ops.convert_to_numpy(outputs), ops.convert_to_numpy(expected))
    copy(x, training=True)  # moves its own statistics
    mean = [a for w, a in zip(source.weights, copy.averages, strict=True) if "mean" in w.path]
    assert np.abs(ops.convert_to_numpy(mean[0])).max() > 0 and mean[0].dtype == "float32"


def test_under_mixed_precision_a_float32_model_sees_whole_averages():
    keras.config.set_dtype_policy("mixed_bfloat16")
    try:
        source = Scale(1.001, dtype="float32")
        source(ones())
        copy = ml.EMA(source)
        assert number(copy(ones())[0, 0]) == np.float32(1.001)
    finally:
        keras.config.set_dtype_policy("float32")

"""Large members, by what Keras has: int8, LoRA, accumulation, bfloat16, remat."""

import keras
import numpy as np
import pytest
from keras import layers, ops

import mlsystem as ml

RNG = np.random.default_rng(0)
X = RNG.normal(size=(8, 6)).astype("float32")


def net(**dtype):
    return keras.Sequential(
        [layers.Input((6,)), layers.Dense(5, "tanh", **dtype), layers.Dense(3, **dtype)]
    )


def each_layer(model, method, *args):
    for layer in model.layers:
        getattr(layer, method)(*args)
    return model


class Distillation(ml.MLSystem):
    """A student learns the outputs of a frozen teacher."""

    def __init__(self, teacher, student, optimizer=None):
        super().__init__()
        self.teacher, self.teacher.trainable = teacher, False
        optimizer = optimizer or keras.optimizers.SGD(0.1)
        self.student = ml.MLModel(student, optimizer=optimizer)

    def forward(self, x):
        return {"teacher": self.teacher(x), "student": self.student(x)}

    def compute_losses(self, x, y, outputs):
        apart = outputs["student"] - ops.stop_gradient(outputs["teacher"])
        return {"student": ops.mean(ops.cast(apart, "float32") ** 2)}


def numpy(weights):
    return [ops.convert_to_numpy(ops.cast(weight.value, "float32")) for weight in weights]


def trained(system, **given):
    """The trained weights of the student, and the names of those that have changed."""
    system.setup(X)
    weights, teacher = system.student.weights, numpy(system.teacher.weights)
    before = numpy(weights)
    given = {"batch_size": 8, "epochs": 3, "shuffle": False, "verbose": 0} | given
    losses = system.fit(X, **given).history["loss"]
    assert losses[-1] < losses[0] and np.isfinite(losses).all()
    for value, first in zip(numpy(system.teacher.weights), teacher, strict=True):
        np.testing.assert_array_equal(value, first)
    pairs = zip(weights, numpy(weights), before, strict=True)
    moved = {weight.name for weight, now, first in pairs if not np.array_equal(now, first)}
    return numpy(system.student.trainable_weights), moved


def as_constant(model):
    """A model that computes the outputs of another one by float weights that were rounded."""
    copy = net()
    for layer, quantized in zip(copy.layers, model.layers, strict=True):
        scale = ops.cast(quantized.kernel_scale, "float32")
        layer.kernel.assign(ops.cast(quantized.kernel, "float32") / scale)
        layer.bias.assign(ops.convert_to_numpy(quantized.bias))
    return copy


def test_an_int8_teacher():
    teacher, student = each_layer(net(), "quantize", "int8"), net()
    rounded = as_constant(teacher)
    twin = keras.models.clone_model(student)
    twin.set_weights(student.get_weights())
    weights, moved = trained(Distillation(teacher, student))
    assert moved == {"kernel", "bias"}
    expected, _ = trained(Distillation(rounded, twin))
    for mine, other in zip(weights, expected, strict=True):
        np.testing.assert_allclose(mine, other, atol=0.02)  # inputs are rounded to int8 too


@pytest.mark.parametrize("quantized", [False, True])
def test_a_student_with_adapters(quantized):
    student = net()
    if quantized:
        each_layer(student, "quantize", "int8")
    each_layer(student, "enable_lora", 2)
    weights, moved = trained(Distillation(net(), student))
    assert moved == {"lora_kernel_a", "lora_kernel_b", "bias"}
    assert len(weights) == 6


def test_accumulated_gradients_equal_a_larger_batch():
    teacher, student = net(), net()
    twin = keras.models.clone_model(student)
    twin.set_weights(student.get_weights())
    small = keras.optimizers.SGD(0.1, gradient_accumulation_steps=2)
    weights, _ = trained(Distillation(teacher, student, small), batch_size=4)
    expected, _ = trained(Distillation(teacher, twin))
    for mine, other in zip(weights, expected, strict=True):
        np.testing.assert_allclose(mine, other, rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("dtype, stored", [("mixed_bfloat16", "float32"), ("bfloat16", "bfloat16")])
def test_a_student_in_bfloat16(dtype, stored):
    system = Distillation(net(dtype="bfloat16"), net(dtype=dtype))
    trained(system)
    assert {str(weight.dtype) for weight in system.student.weights} == {stored}
    assert "bfloat16" in str(system.student(X).dtype)


def test_rematerialization_changes_no_number():
    found = []
    for mode in (None, "full"):
        keras.utils.set_random_seed(0)
        teacher = net()
        with keras.RematScope(mode=mode):
            system = Distillation(teacher, net())
        if mode and keras.backend.backend() == "tensorflow":  # Keras fails there
            with pytest.raises(ValueError, match="custom_gradient"):
                trained(system)
            return
        found.append(trained(system)[0])
    for mine, other in zip(*found, strict=True):
        np.testing.assert_allclose(mine, other, rtol=1e-6, atol=1e-7)

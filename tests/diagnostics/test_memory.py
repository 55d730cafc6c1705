"""`memory`: bytes by model and dtype, against arithmetic by hand."""

import keras
import numpy as np
import pytest
from keras import layers, ops

import mlsystem as ml

X = np.ones((8, 64), "float32")
# What an optimizer holds beside its slots: the number of updates and the learning rate.
COUNTERS = {"jax": 4 + 4, "torch": 4 + 4, "tensorflow": 8 + 4}[keras.backend.backend()]
ON_JAX = keras.backend.backend() == "jax"


class Distillation(ml.MLSystem):
    """A frozen teacher, a student and a copy of the student."""

    def __init__(self, student="adam", teacher="float32"):
        super().__init__()
        self.teacher = keras.Sequential([layers.Input((64,)), layers.Dense(32, dtype=teacher)])
        self.teacher.trainable = False
        net = keras.Sequential([layers.Input((64,)), layers.Dense(32)])
        self.student = ml.MLModel(net, optimizer=student)
        self.copy = ml.EMA(self.student)

    def forward(self, x):
        return {"teacher": ops.cast(self.teacher(x), "float32"), "student": self.student(x)}

    def compute_losses(self, x, y, outputs):
        return {"student": ops.mean((outputs["teacher"] - outputs["student"]) ** 2)}


WEIGHTS = (64 * 32 + 32) * 4


def saved(memory, what, model=""):
    found = [s for s in memory.savings if s.what.startswith(what) and s.model == model]
    return found[0].bytes if found else None


def test_the_bytes_of_each_model():
    memory = Distillation().memory(X)
    teacher, student, copy = (memory[name] for name in ("teacher", "student", "copy"))
    assert teacher.weights == {"float32": WEIGHTS} and teacher.total == WEIGHTS
    assert student.weights == student.gradients == {"float32": WEIGHTS}
    assert sum(student.optimizer.values()) == 2 * WEIGHTS + COUNTERS
    assert student.averages == {} == copy.weights == copy.gradients
    assert copy.averages["float32"] == WEIGHTS  # and its number of updates
    assert sum(copy.averages.values()) == WEIGHTS + 4
    assert memory.total == 6 * WEIGHTS + COUNTERS + 4


def test_a_name_that_is_no_model_is_refused():
    memory = Distillation().memory(X)
    with pytest.raises(KeyError, match="has no model 'studnt'"):
        memory["studnt"]


def test_a_quantized_model_saves_what_was_said():
    plain, system = Distillation().memory(X), Distillation()
    system.teacher.layers[0].quantize("int8")
    memory = system.memory(X)
    assert memory["teacher"].weights == {"int8": 64 * 32, "float32": (32 + 32) * 4}  # bias, scale
    expected = 64 * 32 * 3 - 32 * 4
    assert saved(plain, "quantize", "teacher") == expected == plain.total - memory.total
    assert saved(memory, "quantize", "teacher") is None


def test_bfloat16_of_a_frozen_model_saves_what_was_said():
    plain, memory = Distillation().memory(X), Distillation(teacher="bfloat16").memory(X)
    assert memory["teacher"].weights == {"bfloat16": WEIGHTS // 2}
    assert saved(plain, "dtype='bfloat16'", "teacher") == plain.total - memory.total
    assert saved(plain, "dtype='bfloat16'", "student") is None
    assert saved(memory, "dtype='bfloat16'", "teacher") is None


def test_an_adapter_saves_what_was_said():
    plain, system = Distillation().memory(X), Distillation()
    system.student.net.layers[0].enable_lora(8)
    system.copy = keras.layers.Identity()  # which would hold averages of the adapters too
    memory = system.memory(X)
    adapter, bias = (64 * 8 + 8 * 32) * 4, 32 * 4
    assert memory["student"].gradients == {"float32": adapter + bias}
    assert sum(memory["student"].optimizer.values()) == 2 * (adapter + bias) + COUNTERS
    # The counters are in what the estimate takes for slots.
    said = saved(plain, "LoRA", "student")
    assert said == pytest.approx(plain["student"].total - memory["student"].total, abs=COUNTERS)
    assert saved(memory, "LoRA", "student") is None
    assert saved(memory, "quantize", "student") > 0  # of the frozen kernel


def test_the_step():
    memory = Distillation().memory(X)
    if not ON_JAX:
        assert memory.step is None and "The backend does not tell it." in str(memory)
        assert saved(memory, "keras.RematScope") is None
        return
    # It holds at least the state and the batch. Gradients can be merged into the update.
    assert memory.step >= memory.total - WEIGHTS + X.nbytes
    assert "The compiled step needs" in str(memory)
    more = Distillation().memory(np.ones((4096, 64), "float32"))
    assert more.step > memory.step + 4096 * 64 * 4 - X.nbytes
    assert saved(more, "keras.RematScope") >= 4096 * 32 * 4  # at least the outputs of a layer
    assert saved(more, "mixed_bfloat16") == saved(more, "keras.RematScope") // 2
    assert saved(more, "half the batch") == saved(more, "mixed_bfloat16") - WEIGHTS
    accumulating = keras.optimizers.Adam(gradient_accumulation_steps=2)
    again = Distillation(accumulating).memory(np.ones((4096, 64), "float32"))
    assert sum(again["student"].optimizer.values()) == 3 * WEIGHTS + COUNTERS
    assert saved(again, "half the batch") == saved(again, "mixed_bfloat16")


def test_the_table():
    system = Distillation(keras.optimizers.SGD(0.1))
    text = str(system.memory(X))
    lines = [line.split() for line in text.splitlines()]
    assert lines[0] == ["Memory", "to", "train", f"'{system.name}'"]
    heading = ["model", "dtype", "weights", "gradients", "optimizer", "averages", "total"]
    assert lines[1] == heading
    assert [*["teacher", "float32"], *["8.125", "KiB"] * 2] in lines
    assert ["quantize('int8')", "teacher", "about", "5.875", "KiB"] in lines


def test_a_model_alone_and_tied_weights():
    class Tied(ml.MLModel):
        def __init__(self):
            super().__init__(loss="mse", optimizer="sgd")
            self.inner = layers.Dense(64, use_bias=False)
            self.again = [self.inner, self.inner]

        def forward(self, x):
            return self.inner(self.inner(x))

    model = Tied()
    memory = model.memory((X, X))
    assert [*memory] == [model.key]
    assert memory[model.key].weights == {"float32": 64 * 64 * 4}


def test_nothing_is_trained_and_a_fit_afterwards_works():
    def trained(look):
        keras.utils.set_random_seed(0)
        system = Distillation().setup(X)
        if look:
            before = [ops.convert_to_numpy(weight) for weight in system.weights]
            system.memory(X)
            for weight, value in zip(system.weights, before, strict=True):
                np.testing.assert_array_equal(ops.convert_to_numpy(weight), value)
        return system.fit(X, epochs=2, verbose=0).history

    assert trained(True) == trained(False)

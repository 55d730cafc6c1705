"""`update(when=)` leaves all as it was where it is false, and touches no more than it updates."""

import keras
import numpy as np
import pytest
from keras import layers, ops
from toys import Scale, number

import mlsystem as ml

SGD = keras.optimizers.SGD
each = pytest.mark.parametrize("eager", [False, True], ids=["compiled", "eager"])


class Counted(ml.MLSystem):
    """loss = a x where x > 1, with state, a log and a metric that `forward` moves."""

    def __init__(self):
        super().__init__()
        self.a = Scale(1.0, SGD(0.1, momentum=0.5))
        self.copy = ml.EMA(self.a, momentum=0.5)
        self.last = self.add_weight(shape=(), initializer="zeros", trainable=False, name="last")
        self.calls = self.add_weight(shape=(), dtype="int32", trainable=False, name="calls")
        self.seen = keras.metrics.Sum(name="seen")

    def forward(self, x):
        self.last.assign(ops.mean(x))
        self.calls.assign_add(1)
        self.seen.update_state(x)
        self.log("mean", x)
        return {"a": self.a(x)}

    def compute_losses(self, x, y, outputs):
        return {"a": ops.mean(outputs["a"])}

    def train_step(self, data):
        x = data[0] if isinstance(data, tuple) else data
        self.update(data, "a", when=ops.mean(x) > 1)
        return self.get_metrics_result()


@each
@pytest.mark.parametrize("nonfinite", ["skip", "keep"])
def test_a_batch_for_which_it_is_false_leaves_no_trace(nonfinite, eager):
    system = Counted()
    system.nonfinite = nonfinite
    system.compile(run_eagerly=eager)
    x = np.array([[0.5], [2.0], [-np.inf], [3.0], [0.0]], "float32")
    logs = system.fit(x, batch_size=1, shuffle=False, verbose=0).history
    w1 = 1 - 0.2
    w2 = w1 - 0.1 * (0.5 * 2 + 3)
    assert number(system.a.weight) == pytest.approx(w2)
    assert number(system.optimizers["a"].iterations) == number(system.copy.updates) == 2
    assert number(system.copy.averages[0]) == pytest.approx(((1 + w1) / 2 + w2) / 2)
    assert number(system.last) == 3.0 and number(system.calls) == 2
    assert logs["a_loss"] == pytest.approx([(2 + 3 * w1) / 2])
    assert logs["mean"] == [2.5] and logs["seen"] == [5.0] and "a_skipped" not in logs


def test_a_model_alone():
    class Alone(ml.MLModel):
        def __init__(self):
            super().__init__(loss="mae", metrics=["mae"], optimizer=SGD(0.1))
            self.norm = layers.BatchNormalization(momentum=0.0, center=False, scale=False)
            self.dense = layers.Dense(1, use_bias=False, kernel_initializer="ones")

        def forward(self, x, training=None):
            self.norm(x, training=training)
            return self.dense(x)

        def train_step(self, data):
            self.update(data, when=ops.mean(data[0]) > 1)
            return self.get_metrics_result()

    model, x = Alone(), np.array([[2.0], [0.5], [3.0], [0.0]], "float32")
    logs = model.fit(x, 0 * x, batch_size=1, shuffle=False, verbose=0).history
    assert number(model.dense.kernel[0, 0]) == pytest.approx(1 - 0.2 - 0.3)
    assert number(model.norm.moving_mean[0]) == 3.0
    expected = pytest.approx([(2 + 3 * 0.8) / 2])
    assert logs["loss"] == expected and logs["mae"] == expected
    assert number(model.optimizer.iterations) == 2


def test_variables_of_other_models_are_left_alone(monkeypatch):
    class Beside(ml.MLSystem):
        def __init__(self):
            super().__init__()
            self.a, self.b = Scale(1.0), Scale(1.0)

        def forward(self, x):
            return {"a": self.a(x), "b": self.b(x)}

        def compute_losses(self, x, y, outputs):
            return {"a": ops.mean(outputs["a"])}

        def train_step(self, data):
            self.update(data, "a", when=self.optimizer.iterations >= 0)
            return self.get_metrics_result()

    system, assigned = Beside(), []
    system.setup(np.ones((4, 1), "float32"))
    assign = type(system.b.weight).assign
    monkeypatch.setattr(
        type(system.b.weight), "assign", lambda v, *args: assigned.append(v) or assign(v, *args)
    )
    system.train_on_batch(np.ones((4, 1), "float32"))
    known = {id(variable) for variable in assigned}
    assert id(system.a.weight) in known or keras.backend.backend() == "torch"  # in place there
    others = [system.b.weight, *system.optimizers["b"].variables]
    # the rehearsal puts back all on TensorFlow, eagerly, before the step
    counts = [sum(v is other for v in assigned) for other in others]
    assert max(counts) <= (keras.backend.backend() == "tensorflow")


@pytest.mark.once
@pytest.mark.filterwarnings("ignore:The gradient of 'b'")
def test_update_when_reads_what_is_restored_after_gradients_that_are_not_finite():
    class Reads(ml.MLSystem):
        """Only the gradient of b is infinite on a batch of zeros."""

        routing = "own"

        def __init__(self):
            super().__init__()
            self.a, self.b = Scale(1.0), Scale(1.0)
            self.last = self.add_weight(shape=(), initializer="zeros", trainable=False)
            self.asked = self.add_weight(shape=(), initializer="zeros", trainable=False)
            self.update_when = {"a": self.is_due}

        def forward(self, x):
            self.last.assign(ops.mean(x))
            return {"a": self.a(ops.ones_like(x)), "b": self.b(1 / x)}

        def compute_losses(self, x, y, outputs):
            return {name: ops.mean(value) for name, value in outputs.items()}

        def is_due(self, losses):
            self.asked.assign_add(1.0)
            return self.last > 0.5

    system, x = Reads(), np.array([[1.0], [0.0], [1.0]], "float32")
    logs = system.fit(x, batch_size=1, shuffle=False, verbose=0).history
    assert logs["a_updated"] == [1.0] and logs["b_skipped"] == [1]
    assert number(system.asked) == 2.0  # like `last`, restored on the second batch

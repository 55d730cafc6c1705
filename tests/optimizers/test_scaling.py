"""Models of float16 on the same losses share a backward pass, and keep scales of their own."""

import keras
import numpy as np
import pytest
from keras import ops
from toys import Scale, number, ones

import mlsystem as ml


class Slope(Scale):
    """loss = mean(weight * x * y): the gradient is mean(x y)."""

    def loss(self, x, y, outputs):
        return ops.mean(ops.cast(outputs[self.key], "float32") * y[self.key])


class Halves(ml.MLSystem):
    """Two models of float16 and one of float32, each of which follows the sum of all losses."""

    def __init__(self):
        super().__init__()
        self.a = Slope(1.0, dtype="mixed_float16")
        self.b = Slope(1.0, dtype="mixed_float16")
        self.c = Slope(1.0)

    def forward(self, x):
        return {name: model(x) for name, model in self._mlsystem.models().items()}


def slopes(**given):
    """A batch of one sample for each slope; 1 where no other is given."""
    return {name: np.array(given.get(name, [1.0] * 4), "float32")[:, None] for name in "abc"}


def scales(system):
    return {name: number(system.optimizers[name].dynamic_scale) for name in "ab"}


def test_models_share_a_backward_pass_and_an_overflow_lowers_the_scale_of_its_own(
    backward_passes,
):
    system = Halves()
    # float16 ends at 65504, and 2^15 * 3 is beyond that: `a` skips its first update.
    y = slopes(a=[3, 3, 3, 3], b=[0.5, np.inf, 0.5, 0.5])
    with pytest.warns(UserWarning, match="The gradient of 'b' is not finite"):
        system.fit(ones(4), y, batch_size=1, shuffle=False, verbose=0)
    assert set(backward_passes) == {2, 1}  # into `a` and `b`, and into `c`
    assert scales(system) == {"a": 2.0**14, "b": 2.0**14}
    updates = {name: number(system.optimizers[name].iterations) for name in "abc"}
    assert updates == {"a": 3, "b": 3, "c": 4}
    assert number(system.a.weight) == pytest.approx(1 - 0.1 * 3 * 3)
    assert number(system.b.weight) == pytest.approx(1 - 0.1 * 0.5 * 3)
    assert number(system.c.weight) == pytest.approx(1 - 0.1 * 4)


class Branching(Scale):
    """`other` changes in one of two branches, and in a branch inside that one."""

    def __init__(self):
        super().__init__()
        self.other = self.add_weight(shape=(2,), initializer="zeros", trainable=False)

    def loss(self, x, y, outputs):
        return ops.mean(outputs)

    def double(self):
        self.other.assign(2.0 * self.other)
        return self.other * 1.0

    def train_step(self, data):
        def add():
            self.other.assign_add(ops.ones(2))
            return ops.cond(self.other[0] > 1.0, self.double, lambda: self.other + 0.5)

        seen = ops.cond(ops.mean(data[0]) > 0.0, add, lambda: self.other - 1.0)
        self.update(data)
        return self.get_metrics_result() | {"seen": ops.sum(seen)}


def test_a_branch_sees_what_it_has_written_and_nobody_else_does():
    if keras.backend.backend() == "jax":
        return  # where a branch cannot assign
    model = Branching()
    logs = [model.train_on_batch(sign * ones(), return_dict=True) for sign in (1, -1, 1, 1)]
    # 0 + 1, seen with 0.5 more; as it was, seen with 1 less; (1 + 1) 2; (4 + 1) 2
    assert [log["seen"] for log in logs] == pytest.approx([3.0, 0.0, 8.0, 20.0])
    assert ops.convert_to_numpy(model.other).tolist() == [10.0, 10.0]

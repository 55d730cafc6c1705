"""A step makes tensors of its batch once."""

import pytest
from keras import ops
from toys import Pair, number, ones

from mlsystem._tensors import tensor
from mlsystem.data import batch


class Sizes(Pair):
    """Updates `a` on its data, on other data, and on its data with a part replaced."""

    routing = "own"

    def train_step(self, data):
        x = data["x"]
        self.update(data, "a")
        self.update({"x": 2.0 * x}, "a")
        data["x"] = 3.0 * x
        self.update(data, "a")
        return self.get_metrics_result()

    def forward(self, x):
        return super().forward(x["x"])


def test_a_batch_is_read_once():
    pair = Pair()
    pair.phases = [("a",), ("b",)]
    pair.setup(ones())
    read, made = [], tensor
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(batch, "tensor", lambda leaf: read.append(leaf) or made(leaf))
        pair.train_step(ops.convert_to_tensor(ones()))
    assert len(read) == 1


def test_a_batch_that_a_step_changes_is_read_anew():
    pair = Sizes()
    pair.setup({"x": ones()})
    pair.train_step({"x": ops.convert_to_tensor(ones())})
    weight = 1.0
    for x in (1.0, 2.0, 3.0):  # (w x - 3)^2
        weight -= 0.1 * 2 * (weight * x - 3.0) * x
    assert number(pair.a.weight) == pytest.approx(weight, rel=1e-5)

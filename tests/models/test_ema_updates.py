"""An EMA follows the updates of its source, and not the batches."""

import keras
import numpy as np
import pytest
from keras import ops
from toys import Scale, number

import mlsystem as ml

SGD = keras.optimizers.SGD
each = pytest.mark.parametrize("eager", [False, True], ids=["compiled", "eager"])


class Pair(ml.MLSystem):
    """loss = a x + b x: each update moves a weight by -0.1 of the mean x; copies of both."""

    routing = "own"

    def __init__(self, a, b, **given):
        super().__init__()
        self.a, self.b = Scale(1.0, a), Scale(1.0, b)
        self.copies = [ml.EMA(self.a, momentum=0.5, **given), ml.EMA(self.b, momentum=0.5)]

    def forward(self, x):
        return {"a": self.a(x), "b": self.b(x)}

    def compute_losses(self, x, y, outputs):
        return {name: ops.mean(value) for name, value in outputs.items()}


def fit(system, x, eager):
    system.compile(run_eagerly=eager)
    x = np.array(x, "float32").reshape(-1, 1)
    return system.fit(x, batch_size=1, shuffle=False, verbose=0).history


def averages(system):
    return [number(copy.averages[0]) for copy in system.copies]


def halved(weights):
    average = 1.0
    for weight in weights:
        average = (average + weight) / 2
    return pytest.approx(average, rel=1e-5)


@each
def test_under_accumulation(eager):
    system = Pair(SGD(0.1, gradient_accumulation_steps=4), SGD(0.1))
    fit(system, [1, 2, 3, 4, 5, 6, 7, 8, 9], eager)
    assert number(system.a.weight) == pytest.approx(1 - 0.25 - 0.65)
    assert [number(copy.updates) for copy in system.copies] == [2, 9]
    plain = 1 - 0.1 * np.cumsum(np.arange(1, 10))
    assert averages(system) == [halved([0.75, 0.1]), halved(plain)]


@each
def test_every_second_update_under_accumulation(eager):
    system = Pair(SGD(0.1, gradient_accumulation_steps=2), SGD(0.1), every=2)
    fit(system, [1] * 8, eager)
    assert number(system.copies[0].updates) == 4
    assert averages(system)[0] == halved([0.8, 0.6])


@each
def test_a_step_that_loss_scaling_skips(eager):
    # 3e38 is finite, and overflows when it is scaled
    scaling = keras.optimizers.LossScaleOptimizer(
        SGD(0.1, gradient_accumulation_steps=2), initial_scale=4.0
    )
    system = Pair(scaling, SGD(0.0))
    system.nonfinite = "keep"
    fit(system, [1, 3e38, 1, 1, 3], eager)
    assert number(scaling.dynamic_scale) == 2.0 and number(scaling.iterations) == 2
    assert number(system.a.weight) == pytest.approx(1 - 0.1 - 0.2)
    assert [number(copy.updates) for copy in system.copies] == [2, 5]
    assert averages(system)[0] == halved([0.9, 0.7])

"""Systems of one-weight models, whose gradients can be worked out by hand."""

import keras
import numpy as np
import pytest
from keras import ops

import mlsystem as ml

KERAS = tuple(map(int, keras.__version__.split(".")[:2]))


class Scale(ml.MLModel):
    """outputs = weight * inputs."""

    def __init__(self, weight=1.0, optimizer=None, **kwargs):
        super().__init__(optimizer=optimizer or keras.optimizers.SGD(0.1), **kwargs)
        self.weight = self.add_weight(shape=(), initializer="ones", name="weight")
        self.weight.assign(weight)

    def forward(self, x):
        return x * self.weight


class Fooler(Scale):
    """Wants the judge's score of what it makes to be high: loss = -mean(fake)."""

    def loss(self, x, y, outputs):
        return -ops.mean(outputs["fake"])


class Judge(Scale):
    """Wants fakes low and reals high: loss = mean(fake) - mean(real), in named terms."""

    def loss(self, x, y, outputs):
        return {"fake": ops.mean(outputs["fake"]), "real": -ops.mean(outputs["real"])}


class TinyGAN(ml.MLSystem):
    """fake = d * g * z with z = x, real = d * x.

    With m = mean(x): the generator's loss is -d g m, with dL/dg = -d m; the discriminator's is
    d g m - d m, with dL/dd = (g - 1) m.
    """

    routing = "own"

    def __init__(self, generator=2.0, discriminator=3.0, **kwargs):
        super().__init__(**kwargs)
        self.generator = Fooler(generator, keras.optimizers.SGD(0.1))
        self.discriminator = Judge(discriminator, keras.optimizers.SGD(0.01))
        self.forwards = []

    def forward(self, x, training=None):
        self.forwards.append(training)
        return {"real": self.discriminator(x), "fake": self.discriminator(self.generator(x))}


class Drawing(TinyGAN):
    """A GAN of noise, drawn whatever the pass is for."""

    def __init__(self):
        super().__init__(1.0, 1.0)
        self.seed = keras.random.SeedGenerator(1)

    def forward(self, x, training=None):
        return super().forward(x + keras.random.normal(ops.shape(x), seed=self.seed))


class Target(Scale):
    """loss = (mean(outputs[key]) - goal)^2."""

    def __init__(self, weight=1.0, goal=0.0, **kwargs):
        super().__init__(weight, **kwargs)
        self.goal = goal

    def loss(self, x, y, outputs):
        return (ops.mean(outputs[self.key]) - self.goal) ** 2


class Pair(ml.MLSystem):
    """Two models in a chain: a = x a, b = x a b, each with a squared distance to its goal."""

    def __init__(self, a=1.0, b=2.0, goals=(3.0, 5.0), **kwargs):
        super().__init__(**kwargs)
        self.a = Target(a, goals[0])
        self.b = Target(b, goals[1])

    def forward(self, x):
        a = self.a(x)
        return {"a": a, "b": self.b(a)}


class Critics(ml.MLSystem):
    """A list, a dict, and the system's own weight: every member is 2 x, each wants 0."""

    routing = "own"

    def __init__(self):
        super().__init__()
        self.critics = [Scale(2.0), Scale(2.0)]
        self.heads = {"left": Scale(2.0)}
        self.temperature = self.add_weight(shape=(), initializer="ones", name="temperature")

    def forward(self, x):
        return {
            **{f"critics/{i}": c(x) for i, c in enumerate(self.critics)},
            "heads/left": self.heads["left"](x) * self.temperature,
        }

    def compute_losses(self, x, y, outputs):
        losses = {name: ops.mean(value) ** 2 for name, value in outputs.items()}
        return losses | {"whole": ops.mean(outputs["heads/left"])}


def ones(n=4):
    """A batch whose mean is 1."""
    return np.ones((n, 1), dtype="float32")


def number(value):
    """A scalar tensor or variable as a float."""
    return float(ops.convert_to_numpy(value))


def approx(expected, rel=1e-5):
    return pytest.approx(expected, rel=rel, abs=1e-6)

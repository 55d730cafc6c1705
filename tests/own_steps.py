"""Systems with a training step of their own, whose results have closed forms."""

from keras import ops
from toys import Target, TinyGAN

import mlsystem as ml


class One(ml.MLSystem):
    """One weight w with the loss (w m - 3)^2 at m = mean(x): gradient 2 m (w m - 3)."""

    def __init__(self, weight=1.0):
        super().__init__()
        self.model = Target(weight, goal=3.0)

    def forward(self, x):
        return {"model": self.model(x)}


class SharpnessAware(One):
    """Foret et al. 2021: the gradient at w + rho g / |g| moves w."""

    rho = 0.5

    def train_step(self, data):
        [gradient] = self.gradients(data)["model"]
        step = self.rho * gradient / ops.abs(gradient)
        self.model.weight.assign_add(step)
        gradients = self.gradients(data)
        self.model.weight.assign_sub(step)
        self.apply_gradients(gradients)
        return self.get_metrics_result()


class Maml(One):
    """First-order MAML (Finn et al. 2017): the gradient after an inner step moves the weight."""

    inner = 0.25

    def train_step(self, data):
        start = ops.copy(self.model.weight.value)
        [gradient] = self.gradients(data)["model"]
        self.model.weight.assign_sub(self.inner * gradient)
        gradients = self.gradients(data)
        self.model.weight.assign(start)
        self.apply_gradients(gradients)
        return self.get_metrics_result()


class Reptile(One):
    """Nichol et al. 2018: after k inner steps, go part of the way to where they led."""

    def train_step(self, data):
        start = ops.copy(self.model.weight.value)
        for _ in range(3):
            self.update(data)
        self.model.weight.assign(start + 0.5 * (self.model.weight - start))
        return self.get_metrics_result()


class Minimized(One):
    def train_step(self, data):
        self.minimize(lambda: self.model.weight**2, "model", name="decay")
        self.update(data)
        return self.get_metrics_result()


class Gated(TinyGAN):
    """Trains the judge only while its loss is above a level, decided inside the step."""

    level = 0.0

    def train_step(self, data):
        _, losses = self.update(data, models="generator")
        self.update(data, models="discriminator", when=losses["discriminator"] > self.level)
        return self.get_metrics_result()
